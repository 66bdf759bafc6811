"""The estimates are computed by hand from the duration of an epoch; no test measures time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import baseline_recipes, default_recipe
from nbt.tuning.budget import Budget
from nbt.tuning.finals.plan import plan_finals
from nbt.tuning.job_clock import FINALS, PREPARE, PROFILE, REPORT, TRAIN, TRIALS, JobClock
from nbt.tuning.job_estimate import JobEstimator, StoredWork, mean_relative_cost
from nbt.tuning.relative_cost import CostModel
from nbt.tuning.space.space import Space
from tests.tuning.fakes import FakeClock

OVERHEAD, REPORT_SECONDS = 1.1, 3.0
MODEL = CostModel(units=(0.5, 0.3, 0.2), validation=1 / 3)


def estimator(budget: str = "20", **changes: Any) -> JobEstimator:
    """Returns the estimator of trials of ten epochs of 2 s on one worker."""
    options = {"max_folds": 5, "epoch_seconds": 2.0, "workers": 1, "relative_cost": 0.5, **changes}
    return JobEstimator(Budget.parse(budget), 10, **options)


def epochs(seconds: float, count: int) -> list[EpochResult]:
    return [EpochResult(epoch, 1.0, 1.0, 0.5, seconds) for epoch in range(1, count + 1)]


class TestBeforeTheFirstTrial:
    def test_the_phases_of_a_budget_in_trials(self) -> None:
        time = FakeClock()
        clock = JobClock(time)
        time.now += 4.0
        estimate = estimator(retraining_cost=1.25, profile_share=0.5).estimate(clock)
        # The trials cost 20 trainings of the default recipe; half of that suffices for three more finalists.
        assert plan_finals(20, [0.5] * 3, 5, retraining=1.25).cost == 3 * 2.5 + 1.25 * 1.5
        assert estimate.phases == pytest.approx(
            {
                PREPARE: 4.0,
                PROFILE: 2.0 + 0.5 * 2.0,
                TRIALS: OVERHEAD * 200 * 2.0,
                FINALS: OVERHEAD * 3 * 20.0 * (1.0 + 3 * 0.5),
                TRAIN: OVERHEAD * 20.0 * (1.0 + 0.5) * 1.25,
                REPORT: REPORT_SECONDS,
            }
        )
        assert estimate.elapsed == 4.0
        assert estimate.left == pytest.approx(estimate.total - 4.0)

    @pytest.mark.parametrize("profile_share", [0.0, 0.5])
    def test_fitting_the_models_of_recorded_tables_belongs_to_the_profile(self, profile_share: float) -> None:
        cached, fitted = (
            estimator(profile_share=profile_share, fits_models=fits).estimate(JobClock(FakeClock())).phases
            for fits in (False, True)
        )
        assert fitted == {**cached, PROFILE: pytest.approx(cached.get(PROFILE, 0.0) + 5.0)}

    def test_two_workers_halve_trials_and_finals(self) -> None:
        one, two = (estimator(workers=n).estimate(JobClock(FakeClock())).phases for n in (1, 2))
        assert two[TRIALS] == pytest.approx(one[TRIALS] / 2)
        assert two[FINALS] == pytest.approx(one[FINALS] / 2)
        assert two[TRAIN] == pytest.approx(OVERHEAD * 20.0), "both recipes train at the same time"

    def test_a_budget_in_time_is_the_whole(self) -> None:
        assert estimator("10m").estimate(JobClock(FakeClock())).total == pytest.approx(600.0)

    @pytest.mark.parametrize(("cost", "others"), [(0.5, 3), (1.0, 1), (1.25, 1)])
    def test_cheap_recipes_get_more_finalists(self, cost: float, others: int) -> None:
        plan = plan_finals(20, [cost] * 3, 5)
        assert plan.finalists == 1 + others
        phases = estimator(relative_cost=cost).estimate(JobClock(FakeClock())).phases
        assert phases[FINALS] == pytest.approx(OVERHEAD * plan.folds * 20.0 * (1.0 + others * cost))

    def test_the_share_of_the_finals(self) -> None:
        estimate = estimator().estimate(JobClock(FakeClock()))
        assert estimate.finals_share == pytest.approx((3 * 2.5 + 1.5) / 20)

    def test_the_mean_cost_counts_the_baseline_recipes_and_draws_the_others_from_the_space(self) -> None:
        space = Space.load("non_binary")
        first = [settings for _, settings in baseline_recipes(10)]
        baselines = sum(model_cost / 10 for model_cost in map(MODEL.training, first))
        assert mean_relative_cost(MODEL, space, 10, first, 4) == pytest.approx(baselines / 4)
        frozen = space.without(["transfer_depth", "frozen_depth"]).with_fixed(frozen_depth=1.0)
        later = mean_relative_cost(MODEL, frozen, 10, [], 8)
        assert 0.05 < later < 0.3
        assert mean_relative_cost(MODEL, frozen, 10, first, 8) == pytest.approx((baselines + 4 * later) / 8)


class TestRefinement:
    def test_measured_epochs_replace_the_calibration(self) -> None:
        """The default recipe takes 3 s per epoch and not 2 s; every epoch costs what it should."""
        tested, clock = estimator(), JobClock(FakeClock(), phase=TRIALS)
        for result in epochs(3.0, 10):
            tested.add_epoch(default_recipe(10), result, result.epoch)
        assert tested.estimate(clock).phases[TRIALS] == pytest.approx(OVERHEAD * 190 * 3.0)

    def test_trials_that_take_longer_than_their_estimated_cost(self) -> None:
        """Ten epochs at an estimated cost of .5 take as long as the default recipe; the prior weighs four trials."""
        tested, clock = estimator(), JobClock(FakeClock(), phase=TRIALS)
        for result in epochs(2.0, 10):
            tested.add_epoch(TransferSettings(epochs=10, frozen_depth=0.5), result, 0.5 * result.epoch)
        ratio = (40 + 10) / (40 + 5)
        assert tested.estimate(clock).phases[TRIALS] == pytest.approx(OVERHEAD * 195 * 2.0 * ratio)

    def test_phases_that_ended_took_what_they_took(self) -> None:
        time = FakeClock()
        clock = JobClock(time, earlier={PROFILE: 9.0, TRIALS: 70.0}, phase=FINALS)
        tested = estimator()
        tested.start_finals(8)
        time.now += 12.0
        tested.add_final_run(epochs(1.0, 10))
        phases = tested.estimate(clock).phases
        assert (phases[PROFILE], phases[TRIALS]) == (9.0, 70.0)
        assert phases[FINALS] == pytest.approx(OVERHEAD * 8 * 10.0)
        time.now += 1000.0
        assert tested.estimate(clock).phases[FINALS] == 1012.0, "it already took longer"


class TestStoredWork:
    """A study of 20 trials whose phases took 4, 3, 100, 50, 20 and 2 s in earlier sessions."""

    EARLIER = {PREPARE: 4.0, PROFILE: 3.0, TRIALS: 100.0, FINALS: 50.0, TRAIN: 20.0, REPORT: 2.0}

    def clock(self) -> JobClock:
        return JobClock(FakeClock(), earlier=self.EARLIER)

    def test_of_a_finished_study_only_the_report_is_made_again(self) -> None:
        done = StoredWork(cost=200, phases=frozenset({FINALS, TRAIN}))
        assert estimator(stored=done).estimate(self.clock()).phases == {**self.EARLIER, REPORT: 2.0 + REPORT_SECONDS}

    def test_a_study_that_was_killed_in_its_last_training_repeats_it(self) -> None:
        phases = estimator(stored=StoredWork(cost=200, phases=frozenset({FINALS}))).estimate(self.clock()).phases
        assert phases[FINALS] == 50.0
        assert phases[TRAIN] == pytest.approx(OVERHEAD * 20.0 * 1.5)

    def test_a_larger_budget_adds_trials_and_may_change_the_finalists(self) -> None:
        done = StoredWork(cost=200, phases=frozenset({FINALS, TRAIN}))
        phases = estimator("30", stored=done).estimate(self.clock()).phases
        assert phases[TRIALS] == pytest.approx(100.0 + OVERHEAD * 100 * 2.0)
        assert phases[FINALS] > 50.0

    def test_a_budget_in_time_that_is_used_up(self) -> None:
        done = StoredWork(cost=200, phases=frozenset({FINALS, TRAIN}))
        assert estimator("180s", stored=done).estimate(self.clock()).phases[TRIALS] == 100.0
        assert estimator("10m", stored=done).estimate(self.clock()).total == pytest.approx(600.0)


class TestTime:
    def test_the_minimum_is_a_baseline_trial_the_least_finals_and_the_last_training(self) -> None:
        finals, train = 3 * 20.0 * 1.5, 20.0 * 1.5
        expected = 1.1 * (7.0 + 20.0 + OVERHEAD * (finals + train) + REPORT_SECONDS)
        assert estimator("1m").minimum_seconds(7.0) == pytest.approx(expected)

    def test_more_trials_keep_back_more_time(self) -> None:
        tested = estimator("1h")
        assert tested.closing_seconds(10) == tested.closing_seconds(80)
        assert tested.closing_seconds(150) > tested.closing_seconds(80)

    def test_finals_cost_no_more_than_the_time_left(self) -> None:
        tested = estimator("10m", workers=2)
        assert tested.affordable_cost(100.0) == pytest.approx((600.0 - 100.0 - REPORT_SECONDS) * 2 / (OVERHEAD * 20.0))
        assert tested.affordable_cost(10_000.0) < 0.0
        assert estimator("10").affordable_cost(100.0) == math.inf
