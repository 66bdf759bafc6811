"""NBT206: the validation is better than the test result beyond their intervals."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.metrics import METRICS
from nbt.report.metric_text import difference_text, value_text
from nbt.report.study.recommendation import current_recommendation
from nbt.tuning.finals.test_results import test_results
from nbt.tuning.intervals import value_interval
from nbt.tuning.storage.records import StudyRecord


class Optimism(Check[StudyRecord]):
    """Compares the validation of the final runs with the test result of the retrained model, by the study's metric."""

    code = "NBT206"
    title = "validation above test"
    severity = "warning"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a better validation whose difference to the test result has an interval without 0."""
        recommendation, results = current_recommendation(subject), test_results(subject)
        if recommendation is None or recommendation.final is None or results is None:
            return self.not_applicable("The recommended model has not been tested.")
        metric, test, optimism = METRICS[subject.config.metric], results.recommended.value, results.optimism
        if test is None or optimism is None:
            return self.not_applicable(f"The study stores no test {metric.label}.")
        validation = value_interval(recommendation.final.validation, metric)
        found = (
            f"The validation {metric.label} is {value_text(metric.name, validation.mean)}, the test {metric.label} "
            f"{value_text(metric.name, test.mean)}: {difference_text(metric.name, optimism.mean)}"
        )
        worse_end = optimism.low if metric.higher_is_better else optimism.high
        if worse_end is None:
            return self.not_applicable(f"{found}, without an interval.")
        margin = difference_text(metric.name, abs(optimism.mean - worse_end)).lstrip("+")
        if worse_end <= 0.0 if metric.higher_is_better else worse_end >= 0.0:
            return self.passed(f"{found}, with a margin of {margin} by chance.")
        return self.failed(
            f"{found}, more than the {margin} that chance explains.",
            "Report the test result, not the validation; check whether the test images come from another source, and "
            "whether the same objects occur in training and validation images.",
        )
