from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from nbt.tuning.benchmark.metrics import (
    IntervalEstimate,
    bootstrap_mean,
    bootstrap_mean_estimate,
    bootstrap_median,
    epochs_to_reach,
    epochs_to_stay,
    incumbent_path,
    paired_test,
    ranks,
    regret_curve,
    regret_unit,
)
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import TabularBenchmark
from tests.tuning.benchmark.tables import SPACE, diverge, make_curve, make_table

ACCURACIES = (0.5, 0.7, 0.6, 0.7)


@pytest.fixture
def benchmark() -> TabularBenchmark:
    def with_curve(run):  # type: ignore[no-untyped-def]
        run = dataclasses.replace(run, curve=make_curve(ACCURACIES[run.setting], 0.5))
        return diverge(run) if run.setting == 3 else run

    return TabularBenchmark(make_table(4, change=with_curve), SPACE)


def replayed(*trials: tuple[int, int, str | None]) -> list[ReplayedTrial]:
    """Returns trials from (setting, epochs, stopped)."""
    cumulative_epochs, replayed_trials = 0, []
    for setting, epochs, stopped in trials:
        cumulative_epochs += epochs
        replayed_trials.append(
            ReplayedTrial(
                setting=setting,
                run=0,
                epochs=epochs,
                cumulative_epochs=cumulative_epochs,
                stopped=stopped,
                distance=0.0,
            )
        )
    return replayed_trials


class TestIncumbents:
    def test_the_incumbent_is_the_best_complete_trial(self, benchmark: TabularBenchmark) -> None:
        path = incumbent_path(replayed((0, 6, None), (1, 6, None), (2, 6, None)), benchmark, 20)
        assert list(path) == [*[-1] * 5, *[0] * 6, *[1] * 9]

    def test_a_stopped_trial_is_no_incumbent(self, benchmark: TabularBenchmark) -> None:
        path = incumbent_path(replayed((1, 4, "weak"), (2, 6, None)), benchmark, 12)
        assert list(path) == [*[-1] * 9, *[2] * 3]

    def test_a_diverged_trial_is_the_worst(self, benchmark: TabularBenchmark) -> None:
        path = incumbent_path(replayed((3, 2, None), (0, 6, None)), benchmark, 8)
        assert list(path) == [-1, *[3] * 6, 0]

    def test_trials_beyond_the_horizon_do_not_count(self, benchmark: TabularBenchmark) -> None:
        assert list(incumbent_path(replayed((0, 6, None)), benchmark, 5)) == [-1] * 5


def test_ties_are_broken_by_the_loss() -> None:
    def with_curve(run):  # type: ignore[no-untyped-def]
        curve = make_curve(0.6, 0.5)
        lower = dataclasses.replace(curve[-1], val_loss=0.1 if run.setting == 1 else 0.5)
        return dataclasses.replace(run, curve=(*curve[:-1], lower))

    benchmark = TabularBenchmark(make_table(3, change=with_curve), SPACE)
    path = incumbent_path(replayed((0, 6, None), (1, 6, None), (2, 6, None)), benchmark, 18)
    assert path[5] == 0 and set(path[11:]) == {1}


def test_regret_is_measured_from_the_best() -> None:
    path = np.asarray([-1, 1, 1, 0])
    assert regret_curve(path, np.asarray([0.9, 0.7]), 0.88, chance_accuracy=0.2) == pytest.approx(
        [0.68, 0.18, 0.18, -0.02]
    )


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([0.1, 0.5, 0.9], 0.4),
        ([0.2, 0.9, 0.9], 0.7),
        ([0.2, 0.9, 0.9 - 1e-15], 0.7),
        ([-math.inf, -math.inf, -3.0, -1.0], 2.0),
        ([-math.inf, -8e17, -0.7, -0.7, -0.5], 0.2),
        ([0.9, 0.9, -math.inf], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        ([-math.inf, -math.inf, 3.0], 1.0),
        ([0.0, -1e-12, -2e-12], 1e-12),
    ],
)
def test_the_unit_of_regret_is_best_to_median_or_to_worst(values: list[float], unit: float) -> None:
    assert regret_unit(np.asarray(values)) == pytest.approx(unit)


def test_epochs_to_half_a_point_are_counted_from_one() -> None:
    assert epochs_to_reach(np.asarray([0.3, 0.006, 0.005, 0.2])) == 3
    assert epochs_to_reach(np.asarray([-0.1])) == 1
    assert epochs_to_reach(np.asarray([0.3, 0.006])) is None


def test_epochs_until_it_stays_near() -> None:
    assert epochs_to_stay(np.asarray([0.0, 0.3, 0.005, 0.001])) == 3
    assert epochs_to_stay(np.asarray([0.0, -0.1])) == 1
    assert epochs_to_stay(np.asarray([0.0, 0.3])) is None


class TestIntervals:
    def test_intervals_have_their_nominal_coverage(self) -> None:
        rng = np.random.default_rng(0)
        hits = 0
        for _ in range(200):
            estimate = bootstrap_mean_estimate(rng.normal(1.0, 1.0, size=30).tolist())
            hits += estimate.low <= 1.0 <= estimate.high
        assert 180 <= hits <= 198

    def test_intervals_of_curves_are_per_epoch(self) -> None:
        mean, low, high = bootstrap_mean(np.asarray([[0.0, 1.0], [1.0, 1.0]] * 10))
        assert mean == pytest.approx([0.5, 1.0])
        assert low[0] < 0.5 < high[0]
        assert (low[1], high[1]) == pytest.approx((1.0, 1.0))

    def test_columns_have_the_name_of_the_statistic(self) -> None:
        assert IntervalEstimate(2.0, 1.0, 4.0).columns("rank") == {"rank": 2.0, "rank_low": 1.0, "rank_high": 4.0}

    def test_the_median_may_be_infinite(self) -> None:
        never = bootstrap_median([10.0, math.inf, math.inf, math.inf, math.inf])
        assert (never.value, never.high) == (math.inf, math.inf)
        rarely = bootstrap_median([10.0, 12.0, 11.0, 13.0, math.inf])
        assert (rarely.low, rarely.value) == (10.0, 12.0)
        assert rarely.low <= rarely.value <= rarely.high


class TestComparisons:
    def test_a_paired_test_removes_common_noise(self) -> None:
        base = np.random.default_rng(0).normal(0, 10, size=40)
        assert paired_test((base + 0.5 + 0.01 * np.arange(40)).tolist(), base.tolist()) < 1e-6
        assert paired_test([1.0, 2.0], [1.0, 2.0]) == 1.0
        noise = np.random.default_rng(1).normal(size=40)
        assert paired_test((base + noise).tolist(), base.tolist()) > 0.01

    def test_equal_scores_share_a_rank(self) -> None:
        assert ranks(np.asarray([[1.0, 5.0], [1.0, 3.0], [0.5, 9.0]])).tolist() == [[2.5, 2.0], [2.5, 1.0], [1.0, 3.0]]
