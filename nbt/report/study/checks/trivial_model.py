"""NBT205: the model predicts one class only, or is not better than always guessing."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.metrics import METRICS
from nbt.report.formatting import percent, points
from nbt.report.study.headline import Z95
from nbt.report.study.recommendation import current_recommendation
from nbt.training.metrics import Predictions
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.storage.records import StudyRecord

_ADVICE = "Do not use this model before you have checked that the labels are right; add images of the rare classes"


def _advice(record: StudyRecord) -> str:
    if METRICS[record.config.metric].class_mean:
        return f"{_ADVICE}."
    return f"{_ADVICE}, and search with --metric balanced_accuracy if the classes differ in size."


class TrivialModel(Check[StudyRecord]):
    """Compares the model with always guessing the largest class of the test images, on these images.

    Without stored predictions, the balanced accuracy of the final runs is compared with that of a constant prediction.
    """

    code = "NBT205"
    title = "not better than always guessing"
    severity = "error"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for one predicted class, and for an accuracy that is not above that of guessing beyond noise."""
        predictions = subject.test_predictions("recommended")
        return self._by_validation(subject) if predictions is None else self._by_test(predictions, _advice(subject))

    def _by_test(self, predictions: Predictions, advice: str) -> CheckResult:
        counts, n = predictions.class_counts, len(predictions.labels)
        n_predicted = len(np.unique(predictions.predicted))
        correct = predictions.predicted == predictions.labels
        difference = correct.astype(float) - (predictions.labels == counts.argmax())
        found = (
            f"On {n} test images the accuracy is {percent(float(correct.mean()))}, that of always guessing the largest "
            f"class {percent(float(counts.max() / n))}"
        )
        if n_predicted == 1 and np.count_nonzero(counts) > 1:
            return self.failed(f"{found}: the model predicts one class only.", advice)
        noise = Z95 * float(difference.std()) / math.sqrt(n)
        others = 1.0 - float(counts.max() / n)
        if others <= Z95 * math.sqrt(others * (1.0 - others) / n):
            return self.not_applicable(f"{found}: even a perfect model would not differ from that beyond noise.")
        if difference.mean() <= noise and not _is_balanced_accuracy_above_chance(predictions):
            return self.failed(f"{found}, no difference beyond noise ({points(noise, signed=False)} points).", advice)
        return self.passed(f"{found}.")

    def _by_validation(self, subject: StudyRecord) -> CheckResult:
        recommendation = current_recommendation(subject)
        if recommendation is None or recommendation.final is None:
            return self.not_applicable("The study has no final runs.")
        values = [run.curve[-1].metrics.get("balanced_accuracy") for run in recommendation.final.runs if run.curve]
        known = [value for value in values if value is not None]
        classes, images = subject.dataset.get("classes"), subject.dataset.get(VALIDATION_IMAGES)
        if not known or not classes or not images:
            return self.not_applicable("The study stores no predictions and no balanced accuracies.")
        chance = 1 / classes
        accuracy = fmean(known)
        found = (
            f"The balanced validation accuracy is {percent(accuracy)}, that of a constant prediction {percent(chance)}"
        )
        if all(math.isclose(value, chance) for value in known):
            return self.failed(f"{found}: the model predicts one class only.", _advice(subject))
        if accuracy <= chance + Z95 * math.sqrt(chance * (1 - chance) / images):
            return self.failed(f"{found}, which {images} images do not distinguish.", _advice(subject))
        return self.passed(f"{found}.")


def _is_balanced_accuracy_above_chance(predictions: Predictions) -> bool:
    """Returns whether the mean recall is above that of always guessing beyond noise; classes may differ in size."""
    counts = predictions.class_counts[predictions.class_counts > 0]
    correct = predictions.correct_counts[predictions.class_counts > 0]
    # One correct and one wrong image are added (Agresti and Caffo 2000), so that a perfect recall has an error, too.
    shares = (correct + 1) / (counts + 2)
    error = math.sqrt(float((shares * (1 - shares) / (counts + 2)).sum())) / len(counts)
    return float((correct / counts).mean()) - 1 / len(counts) > Z95 * error
