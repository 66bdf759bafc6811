"""NBT205: the model predicts one class only, or is not better than always guessing."""

from __future__ import annotations

import math
from statistics import fmean

from nbt.checks import Check, CheckResult
from nbt.report.formatting import percent
from nbt.report.study.headline import Z95
from nbt.report.study.recommendation import current_recommendation
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.storage.records import StudyRecord

_ADVICE = (
    "Do not use this model; check that the labels are right, add images of the rare classes, and search with "
    "--metric balanced_accuracy."
)


class TrivialModel(Check[StudyRecord]):
    """Compares the balanced accuracy of the final runs with that of a constant prediction."""

    code = "NBT205"
    title = "not better than always guessing"
    severity = "error"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a balanced accuracy that is not above 1 / classes, that of a constant prediction, beyond noise."""
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
            return self.failed(f"{found}: the model predicts one class only.", _ADVICE)
        if accuracy <= chance + Z95 * math.sqrt(chance * (1 - chance) / images):
            return self.failed(f"{found}, which {images} images do not distinguish.", _ADVICE)
        return self.passed(f"{found}.")
