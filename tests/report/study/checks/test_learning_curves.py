from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED, CheckResult
from nbt.report.study.checks.learning_curves import LearningCurves
from nbt.training.results import EpochResult
from tests.report.study.checks.studies import run, with_curves
from tests.sample_study import EPOCHS, config, curve, diverged_curve, sample_study

CHECK = LearningCurves()


def results(
    accuracies: Sequence[float], val_losses: Sequence[float], train_losses: Sequence[float]
) -> tuple[EpochResult, ...]:
    rows = zip(accuracies, val_losses, train_losses, strict=True)
    return tuple(EpochResult(epoch, train, val, accuracy, 1.0) for epoch, (accuracy, val, train) in enumerate(rows, 1))


FALLING = [2.0 - 0.1 * i for i in range(EPOCHS)]
FLAT = [0.5] * EPOCHS


def result_of(*curves: Sequence[EpochResult], fixed: bool | None = None) -> CheckResult:
    dataset = {**sample_study().dataset, "validation_images": 1000, "validation_fixed": fixed}
    return run(CHECK, finals=(with_curves(curves),), dataset=dataset)


def test_a_plateau_passes() -> None:
    result = result_of(results(FLAT, FALLING, FALLING))
    assert result.state == PASSED
    assert "+0.0 points to 50.0 %" in result.message


def test_an_accuracy_that_still_rises_fails() -> None:
    rising = [0.3 + 0.02 * i for i in range(EPOCHS)]
    result = result_of(results(rising, FALLING, FALLING))
    assert (result.state, result.severity) == (FAILED, "info")
    # From epoch 9 to epoch 12; 1.96 standard errors of 52 % over 1,000 images are 3.1 points.
    assert "+6.0 points to 52.0 %" in result.message
    assert "(3.1 points)" in result.message
    assert "--epochs 24" in result.advice


def test_new_images_of_every_run_reduce_the_noise() -> None:
    rising = results([0.3 + 0.008 * i for i in range(EPOCHS)], FALLING, FALLING)
    assert result_of(rising, rising, fixed=None).state == PASSED
    assert result_of(rising, rising, fixed=True).state == PASSED
    # 2.4 points; the noise of two runs over 2,000 images is 2.1 points.
    assert result_of(rising, rising, fixed=False).state == FAILED


def test_a_validation_loss_that_rises_while_training_improves_fails() -> None:
    rising_loss = [1.0, 0.9, 0.8, *(0.8 + 0.02 * i for i in range(EPOCHS - 3))]
    result = result_of(results(FLAT, rising_loss, FALLING))
    assert (result.state, result.severity) == (FAILED, "warning")
    assert "from 0.8 after epoch 3 to 0.96 after epoch 12" in result.message
    assert "training loss falls from 1.8 to 0.9" in result.message
    assert "--epochs" in result.advice


def test_both_losses_rising_is_not_overfitting() -> None:
    rising_loss = [1.0, 0.9, 0.8, *(0.8 + 0.02 * i for i in range(EPOCHS - 3))]
    assert result_of(results(FLAT, rising_loss, rising_loss)).state == PASSED


def test_short_unvalidated_and_diverged_curves_are_not_applicable() -> None:
    assert result_of(diverged_curve()).state == NOT_APPLICABLE
    assert result_of(tuple(replace(epoch, val_loss=None, val_accuracy=None) for epoch in curve(0.7))).state == (
        NOT_APPLICABLE
    )
    assert run(CHECK, trials=(), finals=(), recommended=None).state == NOT_APPLICABLE


def test_the_metric_of_the_study_is_read() -> None:
    """The accuracy is flat, the macro F1 rises, and a log loss without macro F1 is read as its score."""
    rising = [replace(r, metrics={"macro_f1": 0.3 + 0.02 * i}) for i, r in enumerate(results(FLAT, FALLING, FALLING))]
    dataset = {**sample_study().dataset, "validation_images": 1000, "effective_validation_images": 1000}

    def result_of_metric(metric: str, curve: Sequence[EpochResult]) -> CheckResult:
        return run(CHECK, finals=(with_curves([curve]),), dataset=dataset, config=config(metric=metric))

    found = result_of_metric("macro_f1", rising)
    assert (found.state, "validation macro F1 changes by +6.0 points to 52.0 %" in found.message) == (FAILED, True)
    found = result_of_metric("log_loss", rising)
    assert found.state == FAILED
    assert "log loss changes by \N{MINUS SIGN}0.300 nats to 0.900 nats" in found.message
    assert result_of_metric("accuracy", rising).state == PASSED
    assert result_of_metric("auroc", rising).state == NOT_APPLICABLE
