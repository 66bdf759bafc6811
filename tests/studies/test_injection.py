"""The study of injection: its searches of the rate, its starts and its rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rate_rows(name: str, **values: float) -> list[dict[str, Any]]:
    """Returns the runs that choose a rate; the keys are r and the rate."""
    from injection import RATE_SEED

    return [
        {"arm": name, "seed": RATE_SEED, "changes": {"rate": float(rate[1:].replace("_", "."))}, "val": value}
        for rate, value in values.items()
    ]


def test_a_best_rate_at_the_edge_is_followed_twice() -> None:
    from injection import RATE_SEED, all_keys, best_rate, name_of, next_rate

    key = all_keys()[0]
    name = name_of(key)
    assert next_rate([], key, RATE_SEED) == 0.01
    assert next_rate(rate_rows(name, r0_01=0.1, r0_1=0.3), key, RATE_SEED) == 0.03
    inside = rate_rows(name, r0_01=0.1, r0_03=0.5, r0_1=0.3)
    assert next_rate(inside, key, RATE_SEED) is None
    rising = rate_rows(name, r0_01=0.1, r0_03=0.5, r0_1=0.6)
    assert next_rate(rising, key, RATE_SEED) == 0.3
    rising += rate_rows(name, r0_3=0.7)
    assert next_rate(rising, key, RATE_SEED) == 0.9
    assert next_rate(rising + rate_rows(name, r0_9=0.8), key, RATE_SEED) is None
    falling = rate_rows(name, r0_01=0.9, r0_03=0.5, r0_1=0.6)
    assert next_rate(falling, key, RATE_SEED) == pytest.approx(0.01 / 3, rel=1e-2)
    assert next_rate(rising, key, 0) == best_rate(rising, key) == 0.3
    assert next_rate([*rising, {"arm": name, "seed": 0, "changes": {"rate": 0.3}}], key, 0) is None


def test_stored_runs_that_differ_in_their_rate_are_all_read(tmp_path: Path) -> None:
    from injection import RATE_SEED, all_keys, name_of, next_rate
    from study_rows import append_row, latest_rows

    key, rows = all_keys()[0], tmp_path / "rows.jsonl"
    for row in rate_rows(name_of(key), r0_01=0.1, r0_03=0.5, r0_1=0.3):
        append_row(rows, row)
    assert next_rate(latest_rows(rows), key, RATE_SEED) is None


def rows_with(near: float, far: float) -> list[dict[str, Any]]:
    """Returns all runs, in which injection from near and from far teachers gains so much over random weights."""
    from injection import EPOCHS, INJECT, PAIRS, SEEDS, TEACHER, all_keys, name_of

    rows = []
    for key in all_keys():
        target, student, teacher, arm = key
        gain = 0.0 if arm not in (INJECT, TEACHER) else 0.3 if arm == TEACHER else far
        gain = near if arm == INJECT and PAIRS[student][0] == teacher else gain
        for seed in SEEDS:
            noise = 0.001 * ((len(target + student) + 3 * seed) % 7)
            end = 0.5 + gain + (noise if arm == INJECT else 0.0)
            rows.append(
                {
                    "arm": name_of(key),
                    "seed": seed,
                    "changes": {"rate": 0.03},
                    "val": 0.5,
                    "test": [0.1] * (EPOCHS - 1) + [end],
                }
            )
    return rows


def test_the_verdict_follows_the_rule() -> None:
    from injection import verdict

    assert verdict(rows_with(0.1, 0.05)) == "confirmed"
    assert verdict(rows_with(0.05, 0.1)) == "confirmed in part"
    assert verdict(rows_with(-0.05, -0.1)) == "not confirmed"
    assert verdict(rows_with(0.1, 0.05)[:-1]).startswith("no verdict: ")
    assert verdict([]) == "no verdict: 0 of 12 pairs are complete"


def test_the_arms_start_from_different_weights_of_one_student(shared: Path) -> None:
    from injection import ARMS, TEACHER, start

    student, teacher = "squeezenet1_1", "squeezenet1_0"
    starts = {arm: start(("bangla10", student, teacher, arm), 0, shared) for arm in ARMS if arm != TEACHER}
    filters = {arm: task.w0["units.1.squeeze.weight"] for arm, task in starts.items()}
    names = list(filters)
    assert all(not torch.equal(filters[a], filters[b]) for a in names for b in names if a < b)
    assert all(task.watched is not None and set(task.w0) == set(starts["kaiming"].w0) for task in starts.values())
    ceiling = start(("bangla10", "", teacher, TEACHER), 0, shared)
    assert ceiling.backbone.text == teacher and ceiling.weights.endswith("squeezenet1_0-imagenet.pth")
