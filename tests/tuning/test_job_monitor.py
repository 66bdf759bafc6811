from __future__ import annotations

from pathlib import Path

from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.budget import Budget
from nbt.tuning.job_clock import FINALS, PREPARE, TRIALS, JobClock, JobEstimate
from nbt.tuning.job_estimate import JobEstimator
from nbt.tuning.job_monitor import JobMonitor
from nbt.tuning.storage.records import StudyObserver
from tests.tuning.fakes import EPOCHS, FakeClock, FakeEngine, kill, make_controller, open_fake_study


class Estimates(StudyObserver):
    def __init__(self) -> None:
        self.received: list[JobEstimate] = []

    def job_estimated(self, estimate: JobEstimate) -> None:
        self.received.append(estimate)


def estimator(budget: str = "10") -> JobEstimator:
    return JobEstimator(
        Budget.parse(budget), EPOCHS, max_folds=5, epoch_seconds=1.0, workers=1, relative_cost=1.0, retraining_cost=1.0
    )


def test_seconds_and_first_estimate_are_stored_and_sessions_add_up(tmp_path: Path) -> None:
    time = FakeClock()
    with open_fake_study(tmp_path) as store:
        clock = JobClock(time)
        time.now += 2.0
        monitor = JobMonitor(store, clock, estimator(), StudyObserver())
        first = estimator().estimate(clock).total
        monitor.enter(FINALS)
        time.now += 5.0
        monitor.enter(FINALS)
        assert store.record().clock[PREPARE] == 2.0
        assert store.record().clock[FINALS] == 5.0
        assert store.record().clock["estimate"] == first
    with open_fake_study(tmp_path) as store:
        clock = JobClock(time, earlier=store.record().clock, phase=FINALS)
        time.now += 4.0
        monitor = JobMonitor(store, clock, None, StudyObserver())
        monitor.finals_started(2, ["trial 1"])
        monitor.enter(FINALS)
        assert store.record().clock[FINALS] == 9.0


def test_a_session_that_trains_nothing_adds_no_seconds(tmp_path: Path) -> None:
    time = FakeClock()
    with open_fake_study(tmp_path) as store:
        monitor = JobMonitor(store, JobClock(time), None, StudyObserver())
        time.now += 2.0
        monitor.enter(TRIALS)
    with open_fake_study(tmp_path) as store:
        before = store.record().clock
        monitor = JobMonitor(store, JobClock(time, earlier=before), None, StudyObserver())
        time.now += 60.0
        monitor.enter(FINALS)
        assert store.record().clock == before and not monitor.is_counted
        monitor.training_starts()
        monitor.enter(FINALS)
        assert store.record().clock[PREPARE] == 62.0, "the time until the training counts with it"


def test_each_epoch_refines_the_estimate(tmp_path: Path) -> None:
    observer = Estimates()
    with open_fake_study(tmp_path) as store:
        monitor = JobMonitor(store, JobClock(FakeClock(), phase=TRIALS), estimator(), observer)
        monitor.trial_started(0, default_recipe(EPOCHS), "anchor: default recipe")
        for epoch in (1, 2):
            monitor.epoch_finished(0, EpochResult(epoch, 1.0, 1.0, 0.5, 5.0), epoch)
        monitor.finals_started(8, ["trial 1"])
    before, first, second, _ = observer.received
    assert second.total > 2 * before.total, "an epoch of the default recipe takes 5 s and not 1 s"
    assert first.elapsed == 0.0


def test_a_killed_search_keeps_the_seconds_of_its_trials(tmp_path: Path) -> None:
    time = FakeClock()
    store = open_fake_study(tmp_path)
    monitor = JobMonitor(store, JobClock(time), estimator(), StudyObserver())
    time.now += 1.0
    monitor.enter(TRIALS)
    controller = make_controller(store, clock=time, job=monitor.clock, observers=[monitor])
    spec = controller.next_trial()
    assert spec is not None
    for epoch in range(1, EPOCHS):
        time.now += 4.0
        controller.on_epoch(spec, EpochResult(epoch, 1.0, 1.0, 0.5, 4.0))
    kill(store)
    with open_fake_study(tmp_path) as again:
        assert again.record().clock[TRIALS] >= 4.0 * (EPOCHS - 1) - 10.0
        assert again.record().clock[PREPARE] == 1.0


def test_a_budget_in_time_ends_with_time_for_the_finals(tmp_path: Path) -> None:
    """Of 200 s, finals and last training take up to 200 - 100 s: the trials of 6 s each end before."""
    time, budget = FakeClock(), "200s"
    with open_fake_study(tmp_path, budget) as store:
        tested = estimator(budget)
        monitor = JobMonitor(store, JobClock(time), tested, StudyObserver())
        monitor.enter(TRIALS)
        controller = make_controller(
            store, budget, clock=time, job=monitor.clock, closing_seconds=tested.closing_seconds, observers=[monitor]
        )
        FakeEngine(clock=time).run(controller)
        closing = tested.closing_seconds(store.record().epochs_spent)
    assert closing > 50.0
    assert 200.0 - 2 * 6.0 - closing <= monitor.clock.total <= 200.0 - closing
