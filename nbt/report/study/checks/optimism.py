"""NBT206: the validation accuracy is higher than the test accuracy beyond their intervals."""

from __future__ import annotations

import math

from nbt.checks import Check, CheckResult
from nbt.metrics import DEFAULT_METRIC
from nbt.report.formatting import percent, points
from nbt.report.study.recommendation import current_recommendation
from nbt.tuning.storage.records import StudyRecord


class Optimism(Check[StudyRecord]):
    """Compares the validation accuracy of the final runs with the test accuracy of the retrained model."""

    code = "NBT206"
    title = "validation above test"
    severity = "warning"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a difference that is above 0 by more than the 95 % intervals of both, added in quadrature."""
        recommendation = current_recommendation(subject)
        test = next((test for test in subject.test if test.name == "recommended"), None)
        if recommendation is None or recommendation.final is None or test is None:
            return self.not_applicable("The recommended model has not been tested.")
        if subject.config.metric != DEFAULT_METRIC:
            return self.not_applicable(
                f"The finals are by {subject.config.metric}, the stored test result by accuracy."
            )
        validation, accuracy = recommendation.final.validation, test.accuracy
        optimism = validation.mean - accuracy.mean
        found = (
            f"The validation accuracy is {percent(validation.mean)}, the test accuracy {percent(accuracy.mean)}: "
            f"{points(optimism)} points"
        )
        if validation.low is None or accuracy.high is None:
            return self.not_applicable(f"{found}, without an interval.")
        limit = math.hypot(validation.mean - validation.low, accuracy.high - accuracy.mean)
        if optimism <= limit:
            return self.passed(f"{found}, with a margin of {points(limit, signed=False)} points by chance.")
        return self.failed(
            f"{found}, more than the {points(limit, signed=False)} points that chance explains.",
            "Report the test accuracy, not the validation accuracy; check whether the test images come from another "
            "source, and whether the same objects occur in training and validation images.",
        )
