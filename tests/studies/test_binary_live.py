"""The live confirmation of binary against non-binary transfer: its space, its pairs and its rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nbt.tuning.space.space import Space

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows(*gains: float, datasets: tuple[str, ...] = ("a", "b"), seeds: int = 3) -> list[dict[str, Any]]:
    """Returns the searches of pairs with these gains, for each data set and seed in turn."""
    pairs = [(dataset, seed) for seed in range(seeds) for dataset in datasets]
    return [
        {"dataset": dataset, "seed": seed, "arm": arm, "test": 0.5 + gain * (arm == "non_binary"), "default": 0.4}
        | {"seconds": 60, "machine": "test", "budget": "12"}
        for (dataset, seed), gain in zip(pairs, gains, strict=True)
        for arm in ("binary", "non_binary")
    ]


def test_the_space_makes_the_choices_of_transfer_continuous_and_nothing_else(tmp_path: Path) -> None:
    from binary_live import DIMENSIONS, transfer_space

    file = tmp_path / "transfer.yaml"
    file.write_text(yaml.safe_dump(transfer_space(), sort_keys=False))
    space = Space.load(file)
    assert {dimension.name for dimension in space.dimensions} == set(DIMENSIONS)
    binary = Space.load("binary")
    assert {dimension.name for dimension in binary.dimensions} <= set(DIMENSIONS)
    neutral = [each.default(12) for each in (space, binary)]
    assert neutral[0] == neutral[1], "both have the default recipe in the middle"


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ((0.02, 0.03, 0.02, 0.03, 0.02, 0.03), "confirmed"),
        ((0.20, -0.10, 0.10, -0.05, 0.05, -0.06), "confirmed in part"),
        ((0.005, 0.006, 0.005, 0.006, 0.005, 0.006), "not confirmed"),
    ],
)
def test_rule(gains: tuple[float, ...], expected: str) -> None:
    from binary_live import summarise, verdict

    found = rows(*gains)
    assert verdict(found) == expected
    assert f"Verdict: {expected}." in summarise(found)


def test_incomplete_searches_give_no_verdict() -> None:
    from binary_live import gains, summarise, verdict

    found = rows(0.02, 0.03, 0.02, 0.03, 0.02, 0.03)[:-1]
    assert len(gains(found)) == 5 and verdict(found) == ""
    assert "Verdict: none yet." in summarise(found)
    assert verdict(rows(0.02, 0.03, 0.02, datasets=("a",))) == ""
    assert "No data set and seed with both arms yet." in summarise([])
    others = [{**row, "budget": "2"} for row in found]
    assert "No data set and seed with both arms yet." in summarise(others), "searches of another budget do not count"
