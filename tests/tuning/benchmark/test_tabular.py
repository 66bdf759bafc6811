from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.tuning.benchmark.tabular import CandidatePool, TabularBenchmark, space_coordinates
from nbt.tuning.experience.recorded_table import RecordedTable
from tests.tuning.benchmark.tables import LENGTH, SPACE, WHOLE, diverge, header, make_curve, make_table

PARAMETERS = len(SPACE.parameters)


def gap(one: TransferSettings, other: TransferSettings) -> float:
    return float(np.linalg.norm(space_coordinates(SPACE, repair(one)) - space_coordinates(SPACE, repair(other))))


class TestDistance:
    def test_a_number_counts_by_its_share_of_the_range(self) -> None:
        base = TransferSettings()
        assert gap(base, base) == 0
        assert gap(base, base.replace(label_smoothing=0.1)) == pytest.approx(0.5 / PARAMETERS**0.5)

    def test_rates_count_on_the_logarithm(self) -> None:
        base = TransferSettings(head_lr=0.001)
        assert gap(base, base.replace(head_lr=1.0)) == pytest.approx(1 / PARAMETERS**0.5)
        assert gap(base, base.replace(head_lr=0.01)) == pytest.approx(1 / 3 / PARAMETERS**0.5)

    def test_choices_are_one_apart_whichever_they_are(self) -> None:
        base = TransferSettings()
        wanted = pytest.approx(1 / PARAMETERS**0.5)
        assert gap(base, base.replace(optimizer="adamw")) == wanted
        assert gap(base, base.replace(augmentation="none")) == wanted == gap(base, base.replace(augmentation="rand"))
        assert gap(base, base.replace(batch_size=64)) == wanted, "numbers that are choices have no order"

    def test_every_knot_counts(self) -> None:
        base = TransferSettings()
        assert gap(base, base.replace(layer_lr_shape=(-1.0, 0.0, 0.0))) == pytest.approx(0.5 / PARAMETERS**0.5)

    def test_what_repair_makes_equal_is_no_distance(self) -> None:
        base = TransferSettings(sp_mix=0.0)
        assert gap(base, base.replace(sp_depth=0.3)) == 0


class TestCatalogue:
    def test_runs_of_a_setting_belong_together_without_their_test_accuracy(self) -> None:
        benchmark = TabularBenchmark(make_table(12), SPACE)
        assert [len(setting.runs) for setting in benchmark.settings] == [2, *[1] * 9, 2, 1]
        curves = [curve for setting in benchmark.settings for curve in setting.curves]
        assert all(result.watched_accuracy is None for curve in curves for result in curve)
        assert all(len(curve) == LENGTH for curve in curves)

    def test_parameters_stand_for_the_settings(self) -> None:
        for setting in TabularBenchmark(make_table(30), SPACE).settings:
            assert SPACE.settings(setting.params, LENGTH) == setting.settings

    def test_both_runs_of_a_setting_are_met_the_same_one_by_every_method(self) -> None:
        setting = TabularBenchmark(make_table(1), SPACE).settings[0]
        picks = [setting.choose_run(seed) for seed in range(20)]
        assert set(picks) == {0, 1}
        assert picks == [setting.choose_run(seed) for seed in range(20)]

    def test_tables_that_cannot_be_replayed_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"birds\.parquet: no runs"):
            TabularBenchmark(RecordedTable(header(), (), "birds.parquet"), SPACE)
        short = make_table(4, change=lambda run: dataclasses.replace(run, curve=run.curve[:3]))
        with pytest.raises(UsageError, match="setting 0, seed 0: 3 epochs, but the table.s header has 6"):
            TabularBenchmark(short, SPACE)
        blind = tuple(dataclasses.replace(result, val_accuracy=None) for result in make_curve(0.5, 0.5))
        with pytest.raises(UsageError, match="no validation accuracy"):
            TabularBenchmark(make_table(4, change=lambda run: dataclasses.replace(run, curve=blind)), SPACE)

    def test_a_setting_that_the_space_does_not_vary_is_refused(self) -> None:
        odd = make_table(4, change=lambda run: dataclasses.replace(run, settings=run.settings.replace(warmup=0.5)))
        with pytest.raises(UsageError, match="space non_binary does not vary warmup"):
            TabularBenchmark(odd, SPACE)

    def test_a_table_from_before_a_technique_is_searched_without_it(self) -> None:
        benchmark = TabularBenchmark(make_table(), WHOLE)
        assert benchmark.space.parameters == SPACE.parameters
        assert "zap_period" in WHOLE.parameters

    def test_a_diverged_run_is_shorter(self) -> None:
        assert len(TabularBenchmark(make_table(4, change=diverge), SPACE).settings[0].curves[0]) == 2


class TestPool:
    def test_the_nearest_unused_setting_is_found(self) -> None:
        pool = CandidatePool(TabularBenchmark(make_table(20), SPACE))
        wanted = pool.benchmark.settings[7].settings
        assert pool.nearest(wanted) == (7, 0.0)
        pool.mark_used(7, 0.0)
        index, distance = pool.nearest(wanted)
        gaps = np.linalg.norm(pool.benchmark.points - pool.benchmark.points[7], axis=1)
        assert (index, distance) == (int(np.argsort(gaps)[1]), pytest.approx(np.sort(gaps)[1]))

    def test_it_empties(self) -> None:
        pool = CandidatePool(TabularBenchmark(make_table(5), SPACE))
        for index in (3, 0):
            pool.mark_used(index)
        assert (len(pool), pool.unused) == (3, [1, 2, 4])
