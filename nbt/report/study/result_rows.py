"""The results of a search or training as a few rows of text, for terminals and notebooks."""

from __future__ import annotations

from typing import NamedTuple

from nbt.data.checks.imbalance import MAX_RATIO
from nbt.metrics import METRICS
from nbt.report.formatting import percent, pluralise
from nbt.report.metric_text import guess_text, interval_text, metric_interval_text
from nbt.report.study.test_section import weakest_classes
from nbt.tuning.finals.test_results import TestResult, test_results
from nbt.tuning.intervals import Interval, value_interval
from nbt.tuning.source_accuracies import SourceAccuracies, source_accuracies
from nbt.tuning.storage.records import StudyRecord


class ResultRow(NamedTuple):
    """One row: what was measured, its value with the 95 % interval, and a remark."""

    label: str
    value: str
    remark: str


def study_rows(record: StudyRecord) -> list[ResultRow]:
    """Returns the test results of recommendation, default recipe and always guessing, and the validation.

    The paired difference of the first two has a row that says whether it is beyond chance.

    For imbalanced classes, and by a metric that is a mean over the classes, also those with the lowest recall.
    """
    rows: list[ResultRow] = []
    results = test_results(record)
    if results is not None:
        rows += [
            *model_rows(results.recommended),
            *_test_rows("default recipe", results.baseline, "the same images"),
            *([] if results.difference is None else [_difference_row(results.recommended.metric, results.difference)]),
            *guess_rows(results.majority),
        ]
    final, chosen = record.final(record.recommended or ""), METRICS[record.config.metric]
    if final is not None:
        validation = value_interval(final.validation, chosen)
        runs = pluralise(final.validation.n, "run")
        rows.append(validation_row(chosen.name, validation, runs, None if results is None else results.optimism))
    rows += source_rows(source_accuracies(record))
    recalls = [f"{row.name} {percent(row.recall)} of {row.images}" for row in weakest_classes(record)]
    is_imbalanced = max(record.class_images, default=0) > MAX_RATIO * min(record.class_images, default=0)
    if recalls and (chosen.class_mean or is_imbalanced):
        rows.append(ResultRow("lowest recall", ", ".join(recalls), "of the test images"))
    return rows


def model_rows(result: TestResult) -> list[ResultRow]:
    """Returns the test result of a model, also without the test images that have a copy in training or validation."""
    rows = _test_rows(f"test {METRICS[result.metric].label}", result, pluralise(result.n, "image"))
    if result.without_copies is not None:
        copies = pluralise(result.n - result.without_copies.n, "image")
        rows += _test_rows("without copies", result.without_copies, f"without {copies} copied from training")
    return rows


def guess_rows(result: TestResult | None) -> list[ResultRow]:
    """Returns the test result of always guessing; no row without one."""
    return [] if result is None else _test_rows("guessing", result, guess_text(result.metric))


def validation_row(metric: str, validation: Interval, runs: str, optimism: Interval | None) -> ResultRow:
    """Returns the row of the validation.

    Args:
        metric: Name of the metric.
        validation: Mean value over the runs.
        runs: Number of runs in words.
        optimism: Validation minus test; None without a test result.
    """
    remark = runs if optimism is None else f"{runs}; minus test {_difference(metric, optimism)}"
    return ResultRow("validation", metric_interval_text(metric, validation), remark)


def source_rows(source: SourceAccuracies | None) -> list[ResultRow]:
    """Returns the source accuracy of the tested model beside that of the pretrained weights; no row without one."""
    if source is None or source.recommended is None:
        return []
    remark = f"{pluralise(source.images, 'image')} of the source; pretrained weights {percent(source.reference)}"
    return [ResultRow("source accuracy", interval_text(source.interval(source.recommended)), remark)]


def _test_rows(label: str, result: TestResult | None, remark: str) -> list[ResultRow]:
    if result is None or result.value is None:
        return []
    return [ResultRow(label, metric_interval_text(result.metric, result.value), remark)]


def _difference_row(metric: str, difference: Interval) -> ResultRow:
    """Returns the difference to the default recipe, and whether the interval excludes 0."""
    value = metric_interval_text(metric, difference, signed=True)
    if difference.low is None or difference.high is None or difference.low <= 0.0 <= difference.high:
        return ResultRow("difference", value, "undecided on the test images")
    is_better = (difference.mean > 0.0) == METRICS[metric].higher_is_better
    return ResultRow("difference", value, f"{'better' if is_better else 'worse'} on the test images")


def _difference(metric: str, interval: Interval) -> str:
    return metric_interval_text(metric, interval, signed=True).replace(f" {METRICS[metric].difference_unit}", "")
