"""Recorded tables of the rows of studies: which rows become runs, and what a run keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"
CURVE = [[1.2, 1.1, 0.4, 1.0, 0.9], [1.0, 0.9, 0.5, 1.0, 0.9]]


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(arm: str, seed: int = 0, **values: Any) -> dict[str, Any]:
    base = {"arm": arm, "dataset": "d", "seed": seed, "changes": {"head_lr": 0.02}, "val": 0.5, "test": 0.6}
    return {**base, "curve": CURVE, **values}


@pytest.fixture
def judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Runs of data set "d" from recipes, of which one has its split, and random settings, of which one has no curve."""
    import binary
    import row_tables
    import tuned_default

    without_curve = {name: value for name, value in row("depth", 3).items() if name != "curve"}
    recipes = [row("default recipe"), row("tuned default"), row("default recipe", 1), row("profile and experience")]
    drawn = [without_curve, row("depth", 10), row("all", 11, changes={"sp_mix": 0.3}, val=0.0, test=0.0)]
    monkeypatch.setattr(tuned_default, "JUDGING", write(tmp_path / "recipes.jsonl", *recipes))
    monkeypatch.setattr(binary, "ROWS", write(tmp_path / "drawn.jsonl", *drawn))
    return row_tables.judging_runs()["d"]


def test_judging_table_has_the_default_recipe_and_the_settings_with_a_curve(judging: list[Any]) -> None:
    assert [run.origin for run in judging] == ["anchor: default recipe", "random", "random"]
    assert len({run.setting for run in judging}) == 3
    assert {run.seed for run in judging} == {0}
    assert judging[1].settings.head_lr == 0.02
    assert judging[2].settings.sp_mix == 0.3


def test_run_has_its_curve_and_the_test_accuracy_of_the_last_epoch(judging: list[Any]) -> None:
    run = judging[0]
    assert [epoch.val_accuracy for epoch in run.curve] == [0.4, 0.5]
    assert [epoch.watched_accuracy for epoch in run.curve] == [None, 0.6]
    assert run.test_accuracy == 0.6
    assert not run.diverged


def test_run_without_any_accuracy_diverged(judging: list[Any]) -> None:
    assert judging[2].diverged
    assert judging[2].test_accuracy == 0.0


def test_space_has_the_dimensions_that_some_run_varies(judging: list[Any]) -> None:
    from row_tables import varied_space

    space = varied_space([run.settings for run in judging])
    assert {dimension.name for dimension in space.dimensions} == {"head_lr", "sp_mix"}
