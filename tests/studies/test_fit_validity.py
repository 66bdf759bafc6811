"""The study of fit measures: its rows and how it is resumed, its statistics, and its rule."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows_of(seeds: tuple[int, ...] = (0,), accuracy: Any = None, probe: Any = None) -> list[dict[str, Any]]:
    """Returns all rows of some seeds; accuracy and ridge probe are functions of target and candidate, by number."""
    from fit_candidates import CANDIDATES, PROFILE, TARGETS, all_keys

    rows = []
    for t, target in enumerate(TARGETS):
        for c, candidate in enumerate(CANDIDATES):
            reached = accuracy(t, c) if accuracy else 0.5 + 0.02 * c
            ridge = probe(t, c) if probe else reached
            scalars = {"ridge_accuracy": ridge, "ridge_accuracy_random": 0.2, "knn_accuracy": ridge}
            for seed in seeds:
                for key in all_keys(seed, target, candidate):
                    row = {"arm": key[1], "recipe": key[2], "dataset": target, "seed": seed}
                    run = {"val": reached, "test": reached}
                    facts = {"scalars": {**scalars, "parameters": 1.0, "classes": 4.0, "mean_shift": 0.1 * c}}
                    rows.append({**row, **(facts if key[2] == PROFILE else run)})
    return rows


def point(target: str, accuracy: float, **measures: float) -> Any:
    from fit_candidates import CANDIDATES
    from fit_validity import Point

    return Point(target, CANDIDATES[0], accuracy, measures, (0.4, 0.6))


def test_every_row_has_one_key_and_no_candidate_knows_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    import fit_candidates
    from fit_candidates import BACKBONE, CANDIDATES, SOURCES, TARGETS, Candidate, all_keys

    keys = [key for seed in (0, 1) for t in TARGETS for c in CANDIDATES for key in all_keys(seed, t, c)]
    # 16 profiles per target; per seed two recipes of 14 candidates and one of the two without BatchNorm.
    assert len(CANDIDATES) == 16 and len(TARGETS) == 10 and len(SOURCES) == 8
    assert len(keys) == len(set(keys)) == 10 * (16 + 2 * (14 * 2 + 2))
    assert not set(SOURCES) & set(TARGETS)
    assert all_keys(0, "dtd10", Candidate(BACKBONE, "dtd10")) == []
    assert {recipe for key in keys if "squeezenet" in key[1] for recipe in key[2:3]} == {"profile", "AdamW"}
    assert fit_candidates.weights_of(Candidate("mobilenet_v2", "random"), Path("shared")) == "none"
    monkeypatch.setattr(fit_candidates, "source_weights", lambda source, shared: shared / source)
    assert fit_candidates.weights_of(Candidate(BACKBONE, "dtd10"), Path("shared")) == Path("shared/dtd10")


def test_data_sets_are_those_of_the_list(shared: Path) -> None:
    import yaml
    from fit_candidates import SOURCES, TARGETS

    listed = yaml.safe_load((shared / "data" / "tasks.yaml").read_text())
    assert list(TARGETS) == listed["judging"] and set(SOURCES) < set(listed["tuning"])


def test_a_killed_run_loses_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fit_candidates
    from fit_candidates import CANDIDATES, SEEDS, TARGETS, all_keys, key_of
    from study_rows import read_rows

    computed: list[Any] = []

    def compute(tasks: Any, key: Any) -> dict[str, Any]:
        if len(computed) == 100:
            raise KeyboardInterrupt
        computed.append(key)
        return {"scalars": {}} if key[2] == "profile" else {"test": 0.5}

    monkeypatch.setattr(fit_candidates, "row_values", compute)
    monkeypatch.setattr(fit_candidates, "source_weights", lambda source, shared: shared / source)
    args = Namespace(rows=tmp_path / "rows.jsonl", shared=tmp_path, shard="1/2", minutes=1.0)
    with pytest.raises(KeyboardInterrupt):
        fit_candidates.train_all(args)
    assert [key_of(row) for row in read_rows(args.rows)] == computed
    assert {key[0] for key in computed} == {"scene15", "monkeys10", "elpv4"}  # target by target
    computed.insert(0, None)  # the limit is passed
    fit_candidates.train_all(args)
    expected = [key for seed in SEEDS for t in TARGETS[1::2] for c in CANDIDATES for key in all_keys(seed, t, c)]
    assert [key_of(row) for row in read_rows(args.rows)] == expected, "first seed first, each row once"
    fit_candidates.train_all(args)
    assert len(read_rows(args.rows)) == len(expected)


def test_no_run_starts_after_the_deadline(tmp_path: Path) -> None:
    from fit_candidates import train_all

    args = Namespace(rows=tmp_path / "rows.jsonl", shared=tmp_path, shard="0/1", minutes=-1.0)
    train_all(args)  # a source would not be found
    assert not args.rows.exists()


def test_weighted_tau() -> None:
    from fit_validity import tau

    # Ranks from the best: weights 1, 1/2, 1/3. The pair of the first two, 1.5, is discordant, 4/3 and 5/6 are not.
    group = [point("t", 0.1, m=1.0), point("t", 0.3, m=2.0), point("t", 0.2, m=3.0)]
    assert tau("m", group) == pytest.approx((4 / 3 + 5 / 6 - 3 / 2) / (4 / 3 + 5 / 6 + 3 / 2))
    assert tau("m", [*group, point("t", 0.9, other=1.0)]) == pytest.approx(2 / 11), "ranks those that have it"
    assert math.isnan(tau("m", group[:2]))
    assert tau("m", [point("t", a, m=1.0) for a in (0.1, 0.2, 0.3)]) == 0.0


def test_errors_and_coverage() -> None:
    from fit_validity import errors

    groups = {
        "a": [point("a", 0.5, forecast=0.6, ridge_accuracy=0.3), point("a", 0.7, forecast=0.7, ridge_accuracy=0.6)],
        "b": [point("b", 0.4, forecast=0.45, ridge_accuracy=0.4)],
    }
    # Means .6 and .4: the constant of a is .4, that of b .6. The interval of all is .4 to .6.
    found = errors(groups)
    assert found["forecast"] == pytest.approx([5.0, 5.0])
    assert found["ridge_accuracy"] == pytest.approx([15.0, 0.0])
    assert found["constant"] == pytest.approx([20.0, 20.0])
    assert found["forecast minus constant"] == pytest.approx([-15.0, -15.0])
    assert found["coverage"] == pytest.approx([50.0, 100.0])


def test_bootstrap_over_targets() -> None:
    from fit_validity import bootstrap

    assert bootstrap([0.3, 0.3, math.nan]) == pytest.approx((0.3, 0.3, 0.3))
    # Of two values, a quarter of the samples has the mean 0 and a quarter 1.
    assert bootstrap([0.0, 1.0]) == pytest.approx((0.5, 0.0, 1.0))
    assert bootstrap([0.2]) == (0.2, None, None)
    assert bootstrap([math.nan]) == (None, None, None)


def test_accuracy_is_that_of_the_recipe_with_the_better_validation_accuracy() -> None:
    from fit_candidates import CANDIDATES, TARGETS
    from fit_validity import points
    from study_rows import Row

    def rows_with(seeds: tuple[int, ...]) -> list[Row]:
        rows = rows_of(seeds)
        for row in rows:
            if "val" in row:  # the other recipe has the better test accuracy
                fast = row["recipe"] == "rate .03"
                row |= {"val": 0.4 if fast else 0.5, "test": 0.9 if fast else 0.6 + 0.1 * row["seed"]}
        return rows

    assert {p.accuracy for p in points(rows_with((0,)))} == {0.6}
    both = rows_with((0, 1))
    assert [p.accuracy for p in points(both)] == pytest.approx([0.65] * 160), "mean over seeds"
    partial = [row for row in both if not (row["seed"] == 1 and row["recipe"] == "rate .03")]
    first = [p.accuracy for p in points(partial) if p.target == TARGETS[0]]
    expected = [0.65 if "squeezenet" in c.backbone else 0.6 for c in CANDIDATES]
    assert first == pytest.approx(expected), "a seed counts when all its recipes exist"
    assert points([row for row in both if row["recipe"] != "profile"]) == []


def test_measures() -> None:
    from fit_validity import points

    found = points(rows_of())
    assert found[2].measures["ridge above random"] == pytest.approx(0.34)
    assert found[2].measures["mean_shift"] == pytest.approx(-0.2), "lower is better"
    assert "classes" not in found[2].measures and "ridge_accuracy_random" not in found[2].measures
    tops = {p.candidate.name: p.measures["ImageNet accuracy"] for p in found}
    assert tops["mobilenet_v2, random"] == 0.001 and tops["mobilenet_v2(width_mult=0.35), dtd10"] == 0.603
    assert found[2].measures["forecast"] < found[3].measures["forecast"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "confirmed"),
        ({"coverage": (92.0, 85.0, 99.0)}, "confirmed in part"),
        ({"coverage": (69.0, 60.0, 80.0)}, "confirmed in part"),
        ({"parameters": (0.1, -0.1, 0.3)}, "confirmed in part"),
        ({"ImageNet accuracy": (0.1, -0.1, 0.3)}, "confirmed in part"),
        ({"ridge_accuracy": (-0.1, -0.2, -0.05)}, "confirmed"),
        ({"forecast minus constant": (-2.0, -5.0, 1.0)}, "confirmed in part"),
        ({"forecast": (0.1, -0.1, 0.3)}, "confirmed in part"),
        ({"forecast": (0.1, -0.1, 0.3), "forecast minus constant": (-2.0, -5.0, 1.0)}, "not confirmed"),
        ({"rows": {"0": [459, 460]}}, "no verdict: 459 of 460 rows of the first seed exist"),
    ],
)
def test_the_rule(changes: dict[str, Any], expected: str) -> None:
    from fit_validity import verdict

    better = (0.2, 0.1, 0.3)
    ranks = {"forecast": better}
    differences = dict.fromkeys(("parameters", "ImageNet accuracy", "ridge_accuracy"), better)
    errors = {"forecast minus constant": (-3.0, -5.0, -1.0), "coverage": (80.0, 70.0, 90.0)}
    parts = [{name: changes.get(name, value) for name, value in part.items()} for part in (ranks, differences, errors)]
    found = {"tau": {"pretrained": parts[0]}, "forecast minus": {"pretrained": parts[1]}, "errors": {"all": parts[2]}}
    assert verdict({"rows": changes.get("rows", {"0": [460, 460]}), **found}) == expected


def test_the_results_of_all_rows() -> None:
    from fit_validity import values_of

    # The probe orders all candidates of every target; accuracies are 10 points higher on every second one.
    found = values_of(rows_of(accuracy=lambda t, c: 0.4 + 0.02 * c + 0.1 * (t % 2), probe=lambda t, c: 0.5 + 0.02 * c))
    assert found["tau"]["pretrained"]["forecast"] == pytest.approx((1.0, 1.0, 1.0))
    assert found["tau"]["further trained"]["ImageNet accuracy"] == (0.0, 0.0, 0.0)
    assert found["forecast minus"]["all"]["ridge_accuracy"] == pytest.approx((0.0, 0.0, 0.0))
    # Where accuracies are .1 below the probe, all its errors are 10 points, elsewhere none.
    assert found["errors"]["all"]["ridge_accuracy"][0] == pytest.approx(5.0)
    assert found["verdict"] in ("confirmed", "confirmed in part")


def test_the_report_of_partial_rows(tmp_path: Path) -> None:
    from fit_validity import draw_figure, summarise, values_of

    rows = rows_of()
    assert "seed 0: 460 of 460 rows; seed 1: 0 of 300 rows" in summarise(rows)
    text = summarise(rows[:-1])
    assert "Verdict: no verdict: 459 of 460 rows of the first seed exist." in text
    assert "| ridge probe of the last layer | **1.00 [1.00, 1.00]** | **1.00 [1.00, 1.00]** |" in text
    assert "| size | 0.00 [0.00, 0.00] |" in text
    assert "| mobilenet_v2, random | 60.0 |" in summarise(rows[:30]), "some candidates of one target"
    json.dumps(values_of(rows[:30]), allow_nan=False)
    assert "no verdict: 0 of 460" in summarise([])
    draw_figure(rows, tmp_path / "figure.svg")
    assert "further trained" in (tmp_path / "figure.svg").read_text()
    draw_figure([], tmp_path / "figure.svg")
