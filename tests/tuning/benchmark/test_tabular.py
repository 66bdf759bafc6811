from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.tuning.benchmark.tabular import CandidatePool, TabularBenchmark, space_coordinates
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.space import EPOCHS
from tests.tuning.benchmark.tables import (
    FULL_SPACE,
    LENGTH,
    SPACE,
    diverge,
    halve_even,
    header,
    make_curve,
    make_table,
)

PARAMETERS = len(SPACE.parameters)


def distance_between(first: TransferSettings, second: TransferSettings) -> float:
    return float(np.linalg.norm(space_coordinates(SPACE, repair(first)) - space_coordinates(SPACE, repair(second))))


class TestDistance:
    def test_a_number_is_scaled_by_its_range(self) -> None:
        base = TransferSettings()
        assert distance_between(base, base) == 0
        assert distance_between(base, base.replace(label_smoothing=0.1)) == pytest.approx(0.5 / PARAMETERS**0.5)

    def test_logarithmic_dimensions_are_scaled_on_the_logarithm(self) -> None:
        base = TransferSettings(head_lr=0.001)
        assert distance_between(base, base.replace(head_lr=1.0)) == pytest.approx(1 / PARAMETERS**0.5)
        assert distance_between(base, base.replace(head_lr=0.01)) == pytest.approx(1 / 3 / PARAMETERS**0.5)

    def test_any_two_choices_have_the_same_distance(self) -> None:
        base = TransferSettings()
        expected = pytest.approx(1 / PARAMETERS**0.5)
        assert distance_between(base, base.replace(optimizer="adamw")) == expected
        assert (
            distance_between(base, base.replace(augmentation="none"))
            == expected
            == distance_between(base, base.replace(augmentation="rand"))
        )
        assert distance_between(base, base.replace(batch_size=64)) == expected, "numbers that are choices have no order"

    def test_every_knot_counts(self) -> None:
        base = TransferSettings()
        assert distance_between(base, base.replace(layer_lr_shape=(-1.0, 0.0, 0.0))) == pytest.approx(
            0.5 / PARAMETERS**0.5
        )

    def test_settings_equal_after_repair_have_no_distance(self) -> None:
        base = TransferSettings(sp_mix=0.0)
        assert distance_between(base, base.replace(sp_depth=0.3)) == 0


class TestTabularBenchmark:
    def test_runs_of_a_setting_are_grouped_without_test_accuracies(self) -> None:
        benchmark = TabularBenchmark(make_table(12), SPACE)
        assert [len(setting.runs) for setting in benchmark.settings] == [2, *[1] * 9, 2, 1]
        curves = [curve for setting in benchmark.settings for curve in setting.curves]
        assert all(result.watched_accuracy is None for curve in curves for result in curve)
        assert all(len(curve) == LENGTH for curve in curves)

    def test_parameters_give_the_settings(self) -> None:
        for setting in TabularBenchmark(make_table(30), SPACE).settings:
            assert SPACE.settings(setting.params, LENGTH) == setting.settings

    def test_the_run_of_a_setting_depends_on_the_seed_only(self) -> None:
        setting = TabularBenchmark(make_table(1), SPACE).settings[0]
        picks = [setting.choose_run(seed) for seed in range(20)]
        assert set(picks) == {0, 1}
        assert picks == [setting.choose_run(seed) for seed in range(20)]

    def test_invalid_tables_are_rejected(self) -> None:
        with pytest.raises(UsageError, match=r"birds\.parquet: no runs"):
            TabularBenchmark(RecordedTable(header(), (), "birds.parquet"), SPACE)
        short = make_table(4, change=lambda run: dataclasses.replace(run, curve=run.curve[:3]))
        with pytest.raises(UsageError, match="setting 0, seed 0: 3 epochs, but its settings have 6"):
            TabularBenchmark(short, SPACE)
        without_validation = tuple(dataclasses.replace(result, val_accuracy=None) for result in make_curve(0.5, 0.5))
        with pytest.raises(UsageError, match="no validation accuracy"):
            TabularBenchmark(
                make_table(4, change=lambda run: dataclasses.replace(run, curve=without_validation)), SPACE
            )

    def test_a_setting_outside_the_space_is_rejected(self) -> None:
        recorded = make_table(4, change=lambda run: dataclasses.replace(run, settings=run.settings.replace(warmup=0.5)))
        with pytest.raises(UsageError, match="space non_binary does not vary warmup"):
            TabularBenchmark(recorded, SPACE)

    def test_dimensions_that_the_table_does_not_vary_are_fixed(self) -> None:
        benchmark = TabularBenchmark(make_table(), FULL_SPACE)
        assert benchmark.space.parameters == SPACE.parameters
        assert "zap_period" in FULL_SPACE.parameters

    def test_lengths_that_differ_are_a_dimension(self) -> None:
        assert EPOCHS not in TabularBenchmark(make_table(), SPACE).space.parameters
        benchmark = TabularBenchmark(make_table(change=halve_even), SPACE)
        assert {setting.params[EPOCHS] for setting in benchmark.settings} == {LENGTH // 2, LENGTH}
        assert all(len(curve) == s.params[EPOCHS] for s in benchmark.settings for curve in s.curves)
        assert benchmark.length == LENGTH

    def test_a_diverged_run_is_shorter(self) -> None:
        assert len(TabularBenchmark(make_table(4, change=diverge), SPACE).settings[0].curves[0]) == 2


class TestCandidatePool:
    def test_settings_that_are_too_long_for_the_budget_are_not_available(self) -> None:
        pool = CandidatePool(TabularBenchmark(make_table(20, change=halve_even), SPACE))
        short = [i for i, setting in enumerate(pool.benchmark.settings) if setting.settings.epochs < LENGTH]
        assert len(pool) == len(pool.benchmark.settings) > len(short)
        pool.max_epochs = LENGTH - 1
        assert pool.unused == short and len(pool) == len(short)
        long = pool.benchmark.settings[next(i for i in range(20) if i not in short)].settings
        assert pool.nearest(long)[0] in short
        pool.max_epochs = 1
        assert not len(pool)

    def test_the_nearest_unused_setting_is_found(self) -> None:
        pool = CandidatePool(TabularBenchmark(make_table(20), SPACE))
        expected = pool.benchmark.settings[7].settings
        assert pool.nearest(expected) == (7, 0.0)
        pool.mark_used(7, 0.0)
        index, distance = pool.nearest(expected)
        distances = np.linalg.norm(pool.benchmark.points - pool.benchmark.points[7], axis=1)
        assert (index, distance) == (int(np.argsort(distances)[1]), pytest.approx(np.sort(distances)[1]))

    def test_it_empties(self) -> None:
        pool = CandidatePool(TabularBenchmark(make_table(5), SPACE))
        for index in (3, 0):
            pool.mark_used(index)
        assert (len(pool), pool.unused) == (3, [1, 2, 4])
