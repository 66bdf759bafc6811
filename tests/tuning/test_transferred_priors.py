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
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.samplers.recommendation import recommend_settings
from nbt.tuning.surrogate.experience_model import ExperienceModel
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
    target_table,
    transferred_priors,
    trees_target,
)


class TestTransferredPriors:
    def test_tables_with_enough_settings_have_a_model(self) -> None:
        small = make_table(5)
        priors = TransferredPriors([small, *source_tables()[:1]])
        assert priors.tables == (small, source_tables()[0])
        assert priors.experience is not None
        assert priors.experience.headers == (small.header, source_tables()[0].header)
        assert TransferredPriors([small]).experience is None

    def test_models_are_fitted_once_when_they_are_first_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        priors = TransferredPriors([table(BIRDS, 14)])
        assert not {"experience", "forecaster"} & set(vars(priors))
        priors.surrogate(target(), SPACE)
        assert "forecaster" not in vars(priors), "a surrogate needs no forecaster"
        with patch_small_forests():
            pruner = priors.pruner(target(), length=LENGTH, seed=0)
        assert isinstance(pruner, FitPruner)
        monkeypatch.setattr(CurveForecaster, "fit", None)
        assert isinstance(priors.pruner(target(), length=LENGTH, seed=1), FitPruner)

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
    def test_without_usable_curves_the_pruner_is_asha(self, tables: tuple[RecordedTable, ...]) -> None:
        priors = TransferredPriors(tables)
        assert priors.forecaster is None
        assert isinstance(priors.pruner(target(), length=LENGTH, seed=0), AshaPruner)
        assert recommend_settings(priors.surrogate(target(), SPACE), SPACE)

    def test_the_surrogate_contains_the_model_of_the_tables(self) -> None:
        surrogate = transferred_priors().surrogate(target(), SPACE)
        assert surrogate.experience is transferred_priors().experience is not None
        assert (
            surrogate.activations and not transferred_priors().surrogate(target(), SPACE, heuristics=False).activations
        )

    def test_the_sampler_has_the_target_of_the_surrogate(self) -> None:
        sampler = make_sampler(transferred_priors().surrogate(dataclasses.replace(target(), epochs=7), SPACE), 3)
        assert isinstance(sampler, BayesianSampler)
        assert (sampler._length, sampler._images) == (7, 300)


def invert_curves(recorded: RecordedTable) -> RecordedTable:
    """Returns the table with inverted and reversed accuracies and constant losses."""

    def invert(run: RecordedRun) -> RecordedRun:
        rows = [
            EpochResult(row.epoch, 9.0, 9.0, 1.0 - (row.val_accuracy or 0.0), 1.0, watched_accuracy=0.0)
            for row in reversed(run.curve)
        ]
        return dataclasses.replace(run, curve=tuple(rows))

    return dataclasses.replace(recorded, runs=[invert(run) for run in recorded.runs])


class TestLeaveOneTaskOut:
    """Checks that the priors for an evaluated task do not depend on its recorded curves."""

    def tables(self, *, inverted: bool) -> tuple[list[RecordedTable], RecordedTable]:
        """Returns all tables and the evaluated one."""
        deep = table(Task("deep", seed=9), 30, dataset="trees", data_hash="other shots", backbone="conv4")
        renamed = table(Task("renamed", seed=8), 30, dataset="woods", data_hash="trees")
        same_dataset = [target_table(), deep, renamed]
        if inverted:
            same_dataset = [invert_curves(recorded) for recorded in same_dataset]
        return [*same_dataset, *source_tables()[:2]], same_dataset[0]

    def test_priors_do_not_depend_on_the_curves_of_the_evaluated_task(self) -> None:
        settings, curves = draw(40, seed=2), table_curves(target_table(), None)
        results = []
        for inverted in (False, True):
            tables, evaluated = self.tables(inverted=inverted)
            priors = TransferredPriors(leave_dataset_out(tables, evaluated))
            with patch_small_forests():
                forecaster = priors.forecaster
            assert forecaster is not None
            surrogate = priors.surrogate(trees_target(), SPACE)
            forecast = forecaster.forecast(curves[5].until(4), curves[:3], float("nan"))
            results.append(
                (
                    surrogate.prior_mean(settings),
                    recommend_settings(surrogate, SPACE),
                    forecast.values,
                    forecaster.level,
                )
            )
        (expected, recommended, values, level), (expected2, recommended2, values2, level2) = results
        assert (expected == expected2).all() and recommended == recommended2
        assert (values == values2).all() and level == level2

    def test_inverted_curves_change_the_priors_if_they_are_included(self) -> None:
        settings = draw(40, seed=2)
        original, inverted = (
            TransferredPriors([recorded]).surrogate(trees_target(), SPACE)
            for recorded in (target_table(), invert_curves(target_table()))
        )
        assert np.corrcoef(original.prior_mean(settings), inverted.prior_mean(settings))[0, 1] < 0.5

    def test_the_forecaster_is_trained_without_runs_of_the_same_dataset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise it would learn to trust predictions that are better than they can be on a new task."""
        twin = table(dataclasses.replace(BIRDS, seed=11), 30, backbone="conv4")
        tables = [source_tables()[0], twin]
        with patch_small_forests():
            with_models = CurveForecaster.fit(tables)
            monkeypatch.setattr(ExperienceModel, "fit", lambda tables: None)
            without_models = CurveForecaster.fit(tables)
        curves = table_curves(target_table(), None)
        first, second = (
            forecaster.forecast(curves[9].until(4), curves[:2], float("nan"))
            for forecaster in (without_models, with_models)
        )
        assert (first.values == second.values).all()


def test_a_target_without_facts_and_profile() -> None:
    bare = Target(epochs=LENGTH)
    surrogate = transferred_priors().surrogate(bare, SPACE)
    assert TREES.true_logit(recommend_settings(surrogate, SPACE)) > np.median(
        [TREES.true_logit(settings) for settings in draw(200)]
    )
    assert isinstance(transferred_priors().pruner(bare, length=LENGTH, seed=0), FitPruner)
