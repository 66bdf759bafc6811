"""The finished trials of a growing study, each returned once."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbt.tuning.storage.finished_trials import FinishedTrials


def numbers(trials: Sequence[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_every_finished_trial_is_returned_once_in_order() -> None:
    study, finished = optuna.create_study(), FinishedTrials()
    assert finished.update(study.get_trials(deepcopy=False)) == []
    trials = [study.ask() for _ in range(4)]
    study.tell(trials[2], 0.5)
    assert numbers(finished.update(study.get_trials(deepcopy=False))) == [2]
    assert numbers(finished.unfinished) == [0, 1, 3]
    study.tell(trials[3], 0.5)
    study.tell(trials[0], state=TrialState.FAIL)
    trials.append(study.ask())
    assert numbers(finished.update(study.get_trials(deepcopy=False))) == [0, 3]
    assert numbers(finished.unfinished) == [1, 4]
    assert finished.update(study.get_trials(deepcopy=False)) == []


def test_unfinished_trials_are_the_newest_objects() -> None:
    study, finished = optuna.create_study(), FinishedTrials()
    trial = study.ask()
    finished.update(study.get_trials(deepcopy=False))
    trial.set_user_attr("settings", {})  # Optuna replaces the object of the trial
    finished.update(study.get_trials(deepcopy=False))
    assert finished.unfinished[0].user_attrs == {"settings": {}}


def test_an_update_looks_at_new_and_unfinished_trials_only() -> None:
    study, finished = optuna.create_study(), FinishedTrials()
    for _ in range(20):
        study.tell(study.ask(), 0.5)
    study.ask()
    read: list[int] = []

    class Watched(list[FrozenTrial]):
        def __getitem__(self, key: object) -> object:  # type: ignore[override]
            found = super().__getitem__(key)  # type: ignore[index]
            read.extend(numbers(found) if isinstance(found, list) else [found.number])
            return found

    finished.update(Watched(study.get_trials(deepcopy=False)))
    read.clear()
    study.ask()
    finished.update(Watched(study.get_trials(deepcopy=False)))
    assert read == [20, 21]
