"""The study of models of recorded runs: what they learn from, and its tables."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.space import Space

STUDIES = Path(__file__).resolve().parents[2] / "studies"
SPACE = Space.load("non_binary").with_fixed_epochs()


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


@pytest.fixture(scope="module")
def tables() -> list[RecordedTable]:
    return load_experience(None, SPACE)


def test_models_learn_nothing_from_the_evaluated_data_set(tables: list[RecordedTable]) -> None:
    from surrogates import dataset_of, without

    assert {dataset_of(table) for table in tables} - {dataset_of(table) for table in without(tables, "cub")} == {"cub"}
    assert len(tables) - len(without(tables, "cub")) == 3, "two backbones, and the race"


def test_the_experience_model_ranks_the_settings_of_other_data_sets(tables: list[RecordedTable]) -> None:
    from surrogates import MODELS, is_own, of_table, rank

    evaluated = [of_table(table) for table in filter(is_own, tables)]
    assert len(evaluated) == 13
    ranks = [rank(MODELS["experience model"], tables, item) for item in evaluated]
    assert fmean(ranks) > 0.45 and sum(value > 0.2 for value in ranks) >= 10


def test_every_model_predicts(tables: list[RecordedTable]) -> None:
    from surrogates import MODELS, of_table

    few = [table for table in tables if Path(table.source).parent.name == "race"][:3]
    item = of_table(tables[-1])
    for predict in MODELS.values():
        predicted = predict(few, item.target, item.settings[:10])
        assert predicted.shape == (10,) and np.isfinite(predicted).all()


def test_a_replayed_search_gains_over_the_default_recipe(
    tables: list[RecordedTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    import surrogates

    monkeypatch.setattr(surrogates, "SEEDS", 1)
    monkeypatch.setattr(surrogates, "AMOUNTS", (2, 12))
    [table] = [table for table in tables if table.source.endswith("pokemon25-64.parquet")]
    gains = {name: surrogates.replayed([table], tables, build) for name, build in surrogates.SEARCHES.items()}
    assert all(list(found) == [table.source] for found in gains.values())
    assert gains["recorded tasks and priors (default)"][table.source][1] > 0.0


def test_the_report(tables: list[RecordedTable]) -> None:
    import surrogates

    race = [table for table in tables if Path(table.source).parent.name == "race"][:2]
    random = [table for table in tables if table.source.endswith(("dtd10.parquet", "sketch7.parquet"))]
    evaluated = [surrogates.of_table(table) for table in (*race, *random)]
    items = [
        *evaluated,
        *(surrogates.Evaluated(n, surrogates.JUDGING, evaluated[0].target, [], np.zeros(0)) for n in "ab"),
    ]
    ranks = {
        "model": {
            item.name + item.kind: value for item, value in zip(items, (0.2, 0.4, 0.6, 0.8, 0.3, 0.5), strict=True)
        }
    }
    gains = {
        surrogates.NEITHER: {table.source: [1.0, 2.0] for table in (*race, *random)},
        "priors": {table.source: [2.0 + i, 3.0] for i, table in enumerate((*race, *random))},
    }
    lines = surrogates.summarise(items, ranks, [(4.0, 0.8), None, (6.0, 0.9)], gains).splitlines()
    assert "| model | +0.30 [-0.97, +1.57] | +0.70 [-0.57, +1.97] | +0.40 [-0.87, +1.67] |" in lines
    assert any(
        "mean absolute error 5.0 points, coverage of the 80 % intervals 85 % (80 to 90 %" in line for line in lines
    )
    assert "| priors | +2.5 [-4.9, +7.9] | +3.0 [+1.0, +1.0] |" in lines
