"""NBT209: all runs are validated on the same images."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.report.formatting import pluralise
from nbt.tuning.storage.codec import VALIDATION_FIXED, VALIDATION_IMAGES
from nbt.tuning.storage.records import StudyRecord


class FixedValidation(Check[StudyRecord]):
    """Reads whether the dataset has its own validation part, so that final runs cannot draw new ones."""

    code = "NBT209"
    title = "fixed validation part"
    severity = "info"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a validation part that is the same for every seed."""
        fixed = subject.dataset.get(VALIDATION_FIXED)
        images = subject.dataset.get(VALIDATION_IMAGES)
        if fixed is None or not images:
            return self.not_applicable("The study does not store how its validation part was drawn.")
        part = pluralise(int(images), "validation image")
        if not fixed:
            return self.passed(f"Every final run draws other images: {part}.")
        return self.failed(
            f"The {part} are the dataset's own and the same in all trials and final runs, so that more seeds do not "
            "reduce the error due to their choice.",
            "Judge the model by its test result; to draw new validation images for every seed, give the training and "
            "validation images as one part.",
        )
