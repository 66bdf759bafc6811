from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nbt.search.curve_forecast import CurveForecaster, table_curves
from nbt.search.fit_pruner import FitPruner
from nbt.search.guided import GuidedSampler, recommend
from nbt.search.learned import Learned, sampler
from nbt.search.pruner import Asha
from nbt.search.recorded import RecordedRun, RecordedTable
from nbt.search.replay.methods import leave_out
from nbt.search.target import Target
from nbt.training.results import EpochResult
from tests.search.replay.tables import diverge, make_table
from tests.search.synthetic import (
    BIRDS,
    LENGTH,
    SPACE,
    TREES,
    Task,
    draw,
    few_trees,
    learned,
    others,
    searched,
    table,
    target,
    trees,
)


class TestParts:
    def test_every_table_has_its_model(self) -> None:
        small = make_table(5)
        made = Learned([small, *others()[:1]])
        assert made.tables == (small, others()[0])
        assert made.by_table[0] is None and made.by_table[1] is not None
        assert made.models == [made.by_table[1]]

    def test_they_are_made_once_and_when_they_are_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = Learned([table(BIRDS, 14)])
        assert not {"by_table", "forecaster"} & set(vars(made))
        made.guide(target(), SPACE)
        assert "forecaster" not in vars(made), "a guide needs no forecaster"
        with few_trees():
            first = made.pruner(target(), length=LENGTH, seed=0)
        assert isinstance(first, FitPruner)
        monkeypatch.setattr(CurveForecaster, "__init__", None)
        assert isinstance(made.pruner(target(), length=LENGTH, seed=1), FitPruner)

    @pytest.mark.parametrize(
        "tables",
        [
            (),
            (make_table(5),),
            (make_table(14, change=diverge),),
            (table(BIRDS, 14, length=1),),
        ],
        ids=["none", "few settings", "all diverged", "one epoch"],
    )
    def test_without_curves_to_learn_from_asha_stops_trials(self, tables: tuple[RecordedTable, ...]) -> None:
        made = Learned(tables)
        assert made.forecaster is None
        assert isinstance(made.pruner(target(), length=LENGTH, seed=0), Asha)
        assert recommend(made.guide(target(), SPACE), SPACE)

    def test_the_guide_knows_what_was_recorded(self) -> None:
        guide = learned().guide(target(), SPACE)
        assert guide.experience == tuple(learned().models)
        assert guide.firings and not learned().guide(target(), SPACE, heuristics=False).firings

    def test_the_sampler_is_of_the_guides_task(self) -> None:
        made = sampler(learned().guide(dataclasses.replace(target(), epochs=7), SPACE), 3)
        assert isinstance(made, GuidedSampler)
        assert (made._length, made._images) == (7, 300)


def poison(known: RecordedTable) -> RecordedTable:
    """Returns the table with other curves: what was best is worst, and nothing learns."""

    def spoil(run: RecordedRun) -> RecordedRun:
        rows = [
            EpochResult(row.epoch, 9.0, 9.0, 1.0 - (row.val_accuracy or 0.0), 1.0, watched_accuracy=0.0)
            for row in reversed(run.curve)
        ]
        return dataclasses.replace(run, curve=tuple(rows))

    return dataclasses.replace(known, runs=[spoil(run) for run in known.runs])


class TestLeaveOneTaskOut:
    """What is known when a task is evaluated does not depend on what was measured by training on it."""

    def tables(self, *, poisoned: bool) -> tuple[list[RecordedTable], RecordedTable]:
        """Returns all tables, and the evaluated one."""
        deep = table(Task("deep", seed=9), 30, dataset="trees", data_hash="other shots", backbone="conv4")
        renamed = table(Task("renamed", seed=8), 30, dataset="woods", data_hash="trees")
        mine = [trees(), deep, renamed]
        if poisoned:
            mine = [poison(one) for one in mine]
        return [*mine, *others()[:2]], mine[0]

    def test_what_is_known_does_not_change_with_the_evaluated_curves(self) -> None:
        settings, curves = draw(40, seed=2), table_curves(trees(), [])
        found = []
        for poisoned in (False, True):
            everything, mine = self.tables(poisoned=poisoned)
            known = Learned(leave_out(everything, mine))
            with few_trees():
                forecaster = known.forecaster
            assert forecaster is not None
            guide = known.guide(searched(), SPACE)
            forecast = forecaster.forecast(curves[5].until(4), curves[:3], float("nan"))
            found.append((guide.expectation(settings), recommend(guide, SPACE), forecast.values, forecaster.level))
        (expected, recommended, values, level), (expected2, recommended2, values2, level2) = found
        assert (expected == expected2).all() and recommended == recommended2
        assert (values == values2).all() and level == level2

    def test_the_poison_is_one(self) -> None:
        """Were it not left out, everything would change."""
        settings = draw(40, seed=2)
        clean, spoilt = (Learned([one]).guide(searched(), SPACE) for one in (trees(), poison(trees())))
        assert np.corrcoef(clean.expectation(settings), spoilt.expectation(settings))[0, 1] < 0.5

    def test_the_forecasters_own_examples_leave_out_what_shares_their_dataset(self) -> None:
        """Else it would learn to trust an expectation that is better than it can be on a new task."""
        twin = table(dataclasses.replace(BIRDS, seed=11), 30, backbone="conv4")
        tables = [others()[0], twin]
        known = Learned(tables)
        with few_trees():
            alone = CurveForecaster(tables, [None, None])
            both = CurveForecaster(tables, known.by_table)
        curves = table_curves(trees(), [])
        one, other = (each.forecast(curves[9].until(4), curves[:2], float("nan")) for each in (alone, both))
        assert (one.values == other.values).all()


def test_a_target_without_anything_is_served() -> None:
    bare = Target(epochs=LENGTH)
    guide = learned().guide(bare, SPACE)
    assert TREES.worth(recommend(guide, SPACE)) > np.median([TREES.worth(one) for one in draw(200)])
    assert isinstance(learned().pruner(bare, length=LENGTH, seed=0), FitPruner)
