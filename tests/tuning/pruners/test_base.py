from __future__ import annotations

import numpy as np
import optuna
import pytest

from nbt.errors import UsageError
from nbt.search_config import PRUNERS
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.pruners.base import (
    AshaPruner,
    NoPruner,
    PositionHalvingPruner,
    Pruner,
    TrialContext,
    is_in_best_half,
    make_pruner,
)

LENGTH = 12


def run(study: optuna.Study, pruner: Pruner, accuracies: list[float]) -> tuple[int, str | None]:
    """Runs a trial; returns its last epoch and the reason for stopping."""
    trial = study.ask()
    curve = []
    for epoch, accuracy in enumerate(accuracies, start=1):
        curve.append(EpochResult(epoch, 1.0, 1.0, accuracy, 1.0))
        trial.report(accuracy, epoch)
        if epoch == LENGTH:
            break
        context = TrialContext(study=study, number=trial.number, settings=TransferSettings(), curve=tuple(curve))
        reason = pruner.decide(context)
        if reason is not None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch, reason
    study.tell(trial, accuracies[-1])
    return len(curve), None


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def test_rungs_are_at_a_third_and_two_thirds(study: optuna.Study) -> None:
    asha = AshaPruner(LENGTH)
    assert run(study, asha, [0.9] * LENGTH) == (12, None)
    assert run(study, asha, [0.1] * LENGTH)[0] == 4
    assert run(study, asha, [0.95] * 5 + [0.2] * 7)[0] == 8


@pytest.mark.parametrize(
    ("scores", "kept"),
    [([3], [3]), ([3, 5], [5]), ([4, 3, 5], [5]), ([4, 3, 5, 1], [4, 5]), ([4, 4, 2, 4], [4, 4, 4])],
)
def test_the_best_half_is_rounded_down_to_at_least_one(scores: list[float], kept: list[float]) -> None:
    assert [score for score in scores if is_in_best_half(score, scores)] == kept


def test_the_best_half_is_that_of_optuna(study: optuna.Study) -> None:
    asha, seen = AshaPruner(LENGTH), list[float]()
    for accuracy in np.random.default_rng(0).permutation(16) / 16:
        seen.append(accuracy)
        assert (run(study, asha, [accuracy] * LENGTH)[0] > 4) == is_in_best_half(accuracy, seen)


def test_the_reason_is_a_sentence(study: optuna.Study) -> None:
    asha = AshaPruner(LENGTH)
    run(study, asha, [0.9] * LENGTH)
    assert run(study, asha, [0.314] * LENGTH) == (4, "epoch 4: accuracy 0.314 is not among the best half at this rung")


def test_epochs_before_the_first_rung_have_no_effect(study: optuna.Study) -> None:
    asha = AshaPruner(LENGTH)
    run(study, asha, [0.5] * LENGTH)
    assert run(study, asha, [0.0, 0.0, 0.0, 0.6, *[0.9] * 8]) == (12, None)


def test_about_half_continue(study: optuna.Study) -> None:
    asha = AshaPruner(LENGTH)
    order = [7, 2, 15, 4, 11, 0, 13, 9, 1, 14, 6, 3, 10, 5, 12, 8]
    ends = [run(study, asha, [0.5 + 0.01 * k] * LENGTH)[0] for k in order]
    assert 4 <= sum(end > 4 for end in ends) <= 12
    assert ends[order.index(15)] == 12


@pytest.mark.parametrize("length", range(1, 30))
def test_the_last_epoch_is_no_rung(length: int) -> None:
    rungs = [epoch for epoch in range(1, length) if is_rung(length, epoch)]
    assert len(rungs) <= 2
    assert all(epoch >= length / 3 for epoch in rungs)


def is_rung(length: int, epoch: int) -> bool:
    """Returns whether the worst trial is stopped at this epoch if it was good before."""
    study, asha = optuna.create_study(direction="maximize"), AshaPruner(length)
    for accuracy in (0.9, 0.0):
        trial = study.ask()
        for step in range(1, epoch + 1):
            trial.report(0.95 if accuracy == 0 and step < epoch else accuracy, step)
            curve = (EpochResult(step, 1.0, 1.0, accuracy, 1.0),)
            reason = asha.decide(
                TrialContext(study=study, number=trial.number, settings=TransferSettings(), curve=curve)
            )
    return reason is not None


def test_no_pruner_stops_nothing(study: optuna.Study) -> None:
    pruner = NoPruner()
    run(study, pruner, [0.9] * LENGTH)
    assert run(study, pruner, [0.0] * LENGTH) == (12, None)


def test_names() -> None:
    assert PRUNERS == ("fit", "asha", "none")
    assert [type(make_pruner(name, 12)) for name in PRUNERS[1:]] == [AshaPruner, NoPruner]
    with pytest.raises(UsageError, match="'fit' needs recorded curves"):
        make_pruner("fit", 12)
    with pytest.raises(UsageError, match="unknown pruner 'ahsa'; did you mean asha"):
        make_pruner("ahsa", 12)


def test_halving_by_position_compares_trials_of_different_lengths(study: optuna.Study) -> None:
    pruner = PositionHalvingPruner()

    def decide(number: int, length: int, epoch: int, accuracy: float) -> str | None:
        curve = tuple(EpochResult(i, 1.0, 1.0, accuracy, 1.0) for i in range(1, epoch + 1))
        settings = TransferSettings(epochs=length)
        return pruner.decide(TrialContext(study=study, number=number, settings=settings, curve=curve))

    assert decide(0, 12, 4, 0.6) is None
    assert decide(1, 24, 4, 0.1) is None, "a sixth of its schedule is no rung"
    assert "not among the best half at 1/3" in (decide(1, 24, 8, 0.5) or "")
    assert decide(2, 6, 2, 0.7) is None
    assert decide(2, 6, 4, 0.7) is None
    assert decide(3, 2, 2, 0.0) is None, "the last epoch is no rung"


def test_halving_by_position_agrees_with_asha_at_equal_lengths() -> None:
    rng = np.random.default_rng(0)
    curves = [list(np.linspace(0.1, end, LENGTH)) for end in rng.uniform(0.2, 0.9, 30)]
    first, second = (optuna.create_study(direction="maximize") for _ in range(2))
    asha, by_position = AshaPruner(LENGTH), PositionHalvingPruner()
    ends = [(run(first, asha, curve)[0], run(second, by_position, curve)[0]) for curve in curves]
    assert all(a == b for a, b in ends)
