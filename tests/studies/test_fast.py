"""The study of FAST: its arms, its measures and its rule."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows_with(test: dict[str, float], source: dict[str, float], fast_epochs: int = 2) -> list[dict[str, Any]]:
    """Returns all runs on seeds; unnamed arms end at .5 in both accuracies, after 6 epochs (FAST after fewer)."""
    from fast import EPOCHS, FAST, KEYS, SEEDS

    rows = []
    for index, key in enumerate(KEYS):
        arm, noise = key[-1], 0.001 * (index % 5)
        end, rise = test.get(arm, 0.5) + noise, fast_epochs if arm == FAST else 6
        curve = [end * min(1.0, (epoch + 1) / rise) for epoch in range(EPOCHS)]
        last = source.get(arm, 0.5) + noise
        rows += [{"arm": ", ".join(key), "seed": seed, "changes": [0.01, 0.1], "val": end} for seed in SEEDS]
        for row in rows[-len(SEEDS) :]:
            row |= {"test": curve, "source": [0.9, last]}
    return rows


def verdict_of(rows: list[dict[str, Any]]) -> str:
    from fast import results, verdict

    return verdict(results(rows))


def test_the_verdict_follows_the_rule() -> None:
    from fast import FAST, LOW

    better = rows_with({FAST: 0.6}, {FAST: 0.7})
    assert verdict_of(better) == "confirmed"
    assert verdict_of(rows_with({FAST: 0.6, LOW: 0.7}, {FAST: 0.7, LOW: 0.8})) == "confirmed in part"
    assert verdict_of(rows_with({FAST: 0.45}, {FAST: 0.7})) == "confirmed in part"
    assert verdict_of(rows_with({}, {FAST: 0.3}, fast_epochs=9)) == "not confirmed"
    assert verdict_of(better[:-1]).startswith("no verdict: 5 of 6 pairs")


def test_epochs_to_an_accuracy_are_interpolated_and_bounded() -> None:
    from fast import RANDOM, STALL, epochs_to, results

    assert epochs_to([10.0, 30.0, 50.0], 5.0) == 0.5
    assert epochs_to([10.0, 30.0, 50.0], 40.0) == 2.5
    assert epochs_to([10.0, 30.0, 50.0], 60.0) == 3
    found = results(rows_with({RANDOM: 0.5}, {}))
    assert all(math.isclose(result.ratio(RANDOM, 0.8), 1.0) for result in found)
    assert all(result.ratio(STALL, 0.8) == pytest.approx(1.0, abs=0.02) for result in found)


def test_the_arms_differ_from_the_random_head_by_their_part() -> None:
    from fast import ARMS, FAST, LOW, RANDOM, settings_of

    recipes = {arm: settings_of(arm, (0.01, 0.2)) for arm in ARMS}
    assert len(set(map(str, recipes.values()))) == len(ARMS) - 1  # stall and probe first differ by their ranges
    assert recipes[RANDOM].head_scale == 1.0 and recipes[RANDOM].feature_norm == "none" and not recipes[RANDOM].stall
    assert recipes[FAST].head_scale == 0.0 and recipes[FAST].feature_norm == "batch" and recipes[FAST].stall == 0.2
    assert settings_of(LOW, (0.03, 10.0)).body_lr == pytest.approx(0.003)


def test_the_images_of_the_source_are_of_14_classes(shared: Path, tmp_path: Path) -> None:
    from imagenet_images import write_imagenet_manifest

    write_imagenet_manifest(tmp_path / "source.csv", shared)
    with (tmp_path / "source.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["label"] for row in rows}) == 14 and len(rows) == 20 * 15
    assert all(Path(row["path"]).is_file() for row in rows)
