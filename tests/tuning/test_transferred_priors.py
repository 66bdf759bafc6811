from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nbt.training.results import EpochResult
from nbt.tuning.benchmark.methods import leave_dataset_out
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.pruners.base import AshaPruner
from nbt.tuning.pruners.curve_forecast import CurveForecaster, table_curves
from nbt.tuning.pruners.fit_pruner import FitPruner
from nbt.tuning.samplers.bayesian import BayesianSampler, recommend_settings
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler
from tests.tuning.benchmark.tables import diverge, make_table
from tests.tuning.synthetic import (
    BIRDS,
    LENGTH,
    SPACE,
    TREES,
    Task,
    draw,
    patch_small_forests,
    source_tables,
    table,
    target,
    target_facts,
    target_table,
    transferred_priors,
)


class TestParts:
    def test_every_table_has_its_model(self) -> None:
        small = make_table(5)
        made = TransferredPriors([small, *source_tables()[:1]])
        assert made.tables == (small, source_tables()[0])
        assert made.models_by_table[0] is None and made.models_by_table[1] is not None
        assert made.models == [made.models_by_table[1]]

    def test_they_are_made_once_and_when_they_are_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = TransferredPriors([table(BIRDS, 14)])
        assert not {"models_by_table", "forecaster"} & set(vars(made))
        made.surrogate(target(), SPACE)
        assert "forecaster" not in vars(made), "a guide needs no forecaster"
        with patch_small_forests():
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
        made = TransferredPriors(tables)
        assert made.forecaster is None
        assert isinstance(made.pruner(target(), length=LENGTH, seed=0), AshaPruner)
        assert recommend_settings(made.surrogate(target(), SPACE), SPACE)

    def test_the_guide_knows_what_was_recorded(self) -> None:
        surrogate = transferred_priors().surrogate(target(), SPACE)
        assert surrogate.experience == tuple(transferred_priors().models)
        assert (
            surrogate.activations and not transferred_priors().surrogate(target(), SPACE, heuristics=False).activations
        )

    def test_the_sampler_is_of_the_guides_task(self) -> None:
        made = make_sampler(transferred_priors().surrogate(dataclasses.replace(target(), epochs=7), SPACE), 3)
        assert isinstance(made, BayesianSampler)
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
        deep = table(Task("deep", seed=9), 30, dataset="target_table", data_hash="other shots", backbone="conv4")
        renamed = table(Task("renamed", seed=8), 30, dataset="woods", data_hash="target_table")
        mine = [target_table(), deep, renamed]
        if poisoned:
            mine = [poison(one) for one in mine]
        return [*mine, *source_tables()[:2]], mine[0]

    def test_what_is_known_does_not_change_with_the_evaluated_curves(self) -> None:
        settings, curves = draw(40, seed=2), table_curves(target_table(), [])
        found = []
        for poisoned in (False, True):
            everything, mine = self.tables(poisoned=poisoned)
            known = TransferredPriors(leave_dataset_out(everything, mine))
            with patch_small_forests():
                forecaster = known.forecaster
            assert forecaster is not None
            surrogate = known.surrogate(target_facts(), SPACE)
            forecast = forecaster.forecast(curves[5].until(4), curves[:3], float("nan"))
            found.append(
                (
                    surrogate.prior_mean(settings),
                    recommend_settings(surrogate, SPACE),
                    forecast.values,
                    forecaster.level,
                )
            )
        (expected, recommended, values, level), (expected2, recommended2, values2, level2) = found
        assert (expected == expected2).all() and recommended == recommended2
        assert (values == values2).all() and level == level2

    def test_the_poison_is_one(self) -> None:
        """Were it not left out, everything would change."""
        settings = draw(40, seed=2)
        clean, spoilt = (
            TransferredPriors([one]).surrogate(target_facts(), SPACE)
            for one in (target_table(), poison(target_table()))
        )
        assert np.corrcoef(clean.prior_mean(settings), spoilt.prior_mean(settings))[0, 1] < 0.5

    def test_the_forecasters_own_examples_leave_out_what_shares_their_dataset(self) -> None:
        """Else it would learn to trust an expectation that is better than it can be on a new task."""
        twin = table(dataclasses.replace(BIRDS, seed=11), 30, backbone="conv4")
        tables = [source_tables()[0], twin]
        known = TransferredPriors(tables)
        with patch_small_forests():
            alone = CurveForecaster(tables, [None, None])
            both = CurveForecaster(tables, known.models_by_table)
        curves = table_curves(target_table(), [])
        one, other = (each.forecast(curves[9].until(4), curves[:2], float("nan")) for each in (alone, both))
        assert (one.values == other.values).all()


def test_a_target_without_anything_is_served() -> None:
    bare = Target(epochs=LENGTH)
    surrogate = transferred_priors().surrogate(bare, SPACE)
    assert TREES.true_logit(recommend_settings(surrogate, SPACE)) > np.median(
        [TREES.true_logit(one) for one in draw(200)]
    )
    assert isinstance(transferred_priors().pruner(bare, length=LENGTH, seed=0), FitPruner)
