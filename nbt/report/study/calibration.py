"""Calibration of the recommended model of a study."""

from __future__ import annotations

from nbt.report.formatting import percent, pluralise
from nbt.report.metric_text import value_text
from nbt.training.calibration import Calibration, calibrate, fit_temperature
from nbt.training.metrics import Predictions
from nbt.tuning.storage.records import StudyRecord


def study_temperature(record: StudyRecord) -> float:
    """Returns the temperature of the recommended model, fitted on its final runs; 1 without stored predictions."""
    return fit_temperature(_folds(record))


def study_calibration(record: StudyRecord) -> Calibration | None:
    """Returns the calibration of the recommended model; None without stored predictions of the test images."""
    test = record.test_predictions("recommended")
    return None if test is None else calibrate(_folds(record), test)


def calibration_sentence(record: StudyRecord) -> str:
    """Returns the calibration of the recommended model for the report, "" without a test evaluation."""
    if not record.test:
        return ""
    calibration = study_calibration(record)
    if calibration is None:
        return "The probabilities of the model are not calibrated: the study stores no predictions (temperature 1)."
    if not calibration.folds:
        return (
            f"The expected calibration error on the test images is {percent(calibration.ece)}; without predictions of "
            "final runs, the probabilities are not calibrated (temperature 1)."
        )
    return (
        f"The exported model divides its logits by the temperature {calibration.temperature:.2f}, fitted on the "
        f"validation images of {pluralise(calibration.folds, 'final run')}. Its expected calibration error on the test "
        f"images is {percent(calibration.ece_calibrated)}, without it {percent(calibration.ece)} (15 bins; Guo et al. "
        f"2017). Its log loss, which its model card and nbt evaluate show, is "
        f"{value_text('log_loss', calibration.log_loss_calibrated)}; the table has those before calibration, which "
        "compare recipes."
    )


def _folds(record: StudyRecord) -> list[Predictions]:
    """Returns the predictions of the recommended settings' final runs."""
    final = record.final(record.recommended or "")
    found = [] if final is None else [record.final_predictions(final, run) for run in final.runs]
    return [predictions for predictions in found if predictions is not None]
