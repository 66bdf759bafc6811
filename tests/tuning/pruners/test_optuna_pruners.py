from __future__ import annotations

import optuna
import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.pruners.base import Pruner, TrialContext
from nbt.tuning.pruners.optuna_pruners import hyperband_pruner, median_pruner

LENGTH = 12


def run(study: optuna.Study, pruner: Pruner, accuracy: float) -> tuple[int, str | None]:
    """Runs a trial of constant accuracy; returns its last epoch and the reason for stopping."""
    trial = study.ask()
    curve: list[EpochResult] = []
    for epoch in range(1, LENGTH + 1):
        curve.append(EpochResult(epoch, 1.0, 1.0, accuracy, 1.0))
        trial.report(accuracy, epoch)
        if epoch == LENGTH:
            break
        context = TrialContext(study=study, number=trial.number, settings=TransferSettings(), curve=tuple(curve))
        if (reason := pruner.decide(context)) is not None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch, reason
    study.tell(trial, accuracy)
    return LENGTH, None


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="fixed", direction="maximize")


def test_the_median_rule_starts_after_five_trials_and_a_third_of_the_sixth(study: optuna.Study) -> None:
    pruner = median_pruner(LENGTH)
    assert [run(study, pruner, accuracy)[0] for accuracy in (0.5, 0.6, 0.1, 0.7, 0.8)] == [LENGTH] * 5
    epoch, reason = run(study, pruner, 0.59)
    assert epoch == 4
    assert reason == "epoch 4: its best accuracy is below the median of earlier trials"
    assert run(study, pruner, 0.75) == (LENGTH, None)


def test_hyperband_has_several_brackets(study: optuna.Study) -> None:
    pruner = hyperband_pruner(LENGTH)
    for _ in range(30):
        run(study, pruner, 0.9)
    ends = {run(study, pruner, 0.1)[0] for _ in range(30)}
    assert ends == {1, 3, 9}


def test_hyperband_continues_the_best(study: optuna.Study) -> None:
    pruner = hyperband_pruner(LENGTH)
    assert all(run(study, pruner, 0.01 * i) == (LENGTH, None) for i in range(1, 20))
