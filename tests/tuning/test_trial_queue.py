from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from nbt.training.results import EpochResult, TrialSpec
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.space.space import Space
from nbt.tuning.storage.study_store import StudyStore, TrialPlan
from nbt.tuning.trial_queue import RunningTrial, TrialQueue
from tests.tuning.fakes import EPOCHS, DriverKilled, FakeEngine, kill, make_controller, open_fake_study

SPACE = Space.load("non_binary")
INITIAL = [(f"anchor: {name}", settings) for name, settings in baseline_recipes(EPOCHS)]


@pytest.fixture
def interrupted(tmp_path: Path) -> Any:
    """Returns a store whose second trial was interrupted after two epochs."""
    store = open_fake_study(tmp_path)
    with pytest.raises(DriverKilled):
        FakeEngine(kill_after=EPOCHS + 2).run(make_controller(store))
    kill(store)
    with open_fake_study(tmp_path) as store:
        yield store


def running(number: int) -> RunningTrial:
    settings = INITIAL[number][1]
    plan = TrialPlan(settings=settings, origin=INITIAL[number][0], seed=number, checkpoint=f"c{number}")
    trial = optuna.create_study().ask()
    return RunningTrial(trial, plan, TrialSpec(key=f"trial-{number}", settings=settings))


def test_returned_trials_come_first_then_interrupted_then_initial_ones(interrupted: StudyStore) -> None:
    queue = TrialQueue(interrupted.trials(), SPACE, INITIAL)
    queue.returned += [running(2), running(3)]
    taken = []
    for _ in range(7):
        taken.append(queue.first())
        queue.remove_first()
    assert [queued.run is not None for queued in taken] == [True, True, *[False] * 5]
    assert [queued.plan.checkpoint for queued in taken if queued.plan is not None] == ["c2", "c3", "trial-0001"]
    continued = taken[2]
    assert continued.plan is not None and continued.plan.continues == 1
    assert continued.params == interrupted.trials()[1].params
    assert len(continued.curve) == 2
    assert [queued.origin for queued in taken[2:]] == [
        "anchor: linear probe",
        "anchor: L2-SP",
        "anchor: FAST",
        "sampler",
        "sampler",
    ]
    assert taken[-1].params is None


def test_a_continued_trial_is_not_queued_again(interrupted: StudyStore) -> None:
    controller = make_controller(interrupted)
    assert controller.next_trial() is not None
    queued = TrialQueue(interrupted.trials(), SPACE, ()).first()
    assert (queued.plan, queued.origin) == (None, "sampler")


def test_a_restarted_trial_reports_no_epoch_twice_and_keeps_the_newest_results() -> None:
    trial = running(0)
    first = [EpochResult(epoch, 1.0, 1.0, 0.1 * epoch, 1.0) for epoch in (1, 2)]
    assert [trial.add_epoch(result) for result in first] == [[first[0]], [first[1]]]
    again = [EpochResult(epoch, 1.0, 1.0, 0.2 * epoch, 1.0) for epoch in (1, 2, 3)]
    assert [trial.add_epoch(result) for result in again] == [[], [], [again[2]]]
    assert trial.curve == again
    assert (trial.trained_epochs, trial.last_reported_epoch) == (3, 3), "each epoch counts once"


def test_a_restarted_trial_keeps_the_epochs_that_it_has_not_repeated_yet() -> None:
    trial = running(0)
    trial.curve = [EpochResult(epoch, 1.0, 1.0, 0.1 * epoch, 1.0) for epoch in (1, 2, 3)]
    again = EpochResult(1, 1.0, 1.0, 0.5, 1.0)
    assert trial.add_epoch(again) == [again]
    assert [result.epoch for result in trial.curve] == [1, 2, 3]
    assert (trial.trained_epochs, trial.epochs_left) == (0, trial.spec.settings.epochs - 3)


def test_a_resumed_trial_reports_the_epochs_before_it() -> None:
    before = [EpochResult(epoch, 1.0, 1.0, 0.1 * epoch, 1.0) for epoch in (1, 2)]
    trial = running(0)
    trial.curve = list(before)
    new = EpochResult(3, 1.0, 1.0, 0.5, 1.0)
    assert trial.add_epoch(new) == [*before, new]
