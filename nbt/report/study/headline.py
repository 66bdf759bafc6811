"""The main result of a study: which settings to use, their test result, and the validation that chose them."""

from __future__ import annotations

import math

from nbt.metrics import METRICS
from nbt.report.formatting import format_interval, percent, pluralise, points, points_interval
from nbt.report.metric_text import bounds_text, difference_bounds_text, difference_text, guess_text, value_text
from nbt.report.study.recommendation import StudyRecommendation, default_recipe_trial
from nbt.tuning.finals.test_results import TestResult, TestResults, test_results
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import StudyRecord

Z95 = 1.96
"""Half width of a 95 % interval in standard errors."""


def headline(record: StudyRecord, recommendation: StudyRecommendation | None) -> str:
    """Returns the main result in one sentence."""
    if recommendation is None:
        return "Nothing can be recommended yet: no trial has run to its full length."
    if recommendation.final is None:
        return _headline_before_finals(record, recommendation)
    advice = "Use the default recipe" if recommendation.is_default else f"Use the settings of {recommendation.name}"
    results = test_results(record)
    result = _validation_text(recommendation) if results is None else _test_text(results, recommendation.is_default)
    return f"{advice}: {result}."


def validation_sentences(record: StudyRecord, recommendation: StudyRecommendation | None) -> tuple[str, ...]:
    """Returns the validation of the recommended settings and its difference to the test result, if there is one."""
    results = test_results(record)
    if recommendation is None or recommendation.final is None or results is None:
        return ()
    optimism = () if results.optimism is None else (_optimism_sentence(results.recommended.metric, results.optimism),)
    return (f"In the final runs: {_validation_text(recommendation)}.", *optimism)


def _validation_text(recommendation: StudyRecommendation) -> str:
    assert recommendation.final is not None
    comparison = comparison_to_default(recommendation.final.versus_default)
    if recommendation.is_default:
        comparison = "; no settings of the search have a better mean"
    return f"{_accuracy_with_interval(recommendation.final.validation)}{comparison}"


def _test_text(results: TestResults, is_default: bool) -> str:
    """Returns the test results, e.g. "70.1 % test accuracy (95 % interval ..., 900 images); the default recipe ..."."""
    metric = results.recommended.metric
    others = [("the default recipe", None if is_default else results.baseline), (guess_text(metric), results.majority)]
    compared = [
        f"{name} {value_text(metric, other.value.mean)} ({bounds_text(metric, other.value)})"
        for name, other in others
        if other is not None and other.value is not None
    ]
    return "; ".join([_test_value_text(results.recommended), *compared])


def _test_value_text(result: TestResult) -> str:
    if result.value is None:
        return f"test {METRICS[result.metric].label} unknown"
    interval = "" if result.value.low is None else f"95 % interval {bounds_text(result.metric, result.value)}, "
    label = METRICS[result.metric].label
    return f"{value_text(result.metric, result.value.mean)} test {label} ({interval}{pluralise(result.n, 'image')})"


def _optimism_sentence(metric: str, optimism: Interval) -> str:
    """Returns the difference of validation and test, and whether it is more than chance."""
    distance = difference_text(metric, abs(optimism.mean)).lstrip("+")
    where = "above" if optimism.mean > 0 else "below"
    text = f"The validation mean is {distance} {where} the test result"
    if optimism.low is None or optimism.high is None:
        return f"{text}."
    text += f" (95 % interval of the difference {difference_bounds_text(metric, optimism)})"
    if optimism.low <= 0.0 <= optimism.high:
        return f"{text}, which is within the uncertainty of both."
    if (optimism.mean > 0) == METRICS[metric].higher_is_better:
        return f"{text}: the validation is optimistic; rely on the test result."
    return f"{text}: the test result is better than the validation, which trains on fewer images."


def _accuracy_with_interval(validation: Interval) -> str:
    """Returns accuracy and interval, e.g. "70.6 % validation accuracy (95 % interval ..., 5 seeds)"."""
    accuracy = f"{percent(validation.mean)} validation accuracy"
    if validation.low is None:
        return f"{accuracy} (one seed, no interval)"
    return f"{accuracy} (95 % interval {format_interval(validation)}, {pluralise(validation.n, 'seed')})"


def comparison_to_default(versus: Interval | None) -> str:
    """Returns the clause on a paired difference to the default recipe.

    It contains "better" or "worse" only if the whole 95 % interval is on one side of zero.
    """
    if versus is None:
        return "; the default recipe was not run for comparison"
    if versus.low is None or versus.high is None:
        return f"; one seed does not distinguish it from the default recipe ({points(versus.mean)} points)"
    bounds = f"95 % interval {points_interval(versus)}"
    if versus.low > 0:
        return f", {points(versus.mean, signed=False)} points better than the default recipe ({bounds})"
    if versus.high < 0:
        return f", {points(versus.mean, signed=False)} points worse than the default recipe ({bounds})"
    return f"; it cannot be distinguished from the default recipe ({points(versus.mean)} points, {bounds})"


def _headline_before_finals(record: StudyRecord, recommendation: StudyRecommendation) -> str:
    assert recommendation.trial is not None, "before the finals a recommendation is a trial"
    accuracy = recommendation.trial.val_accuracy or 0.0
    recommended = "the default recipe" if recommendation.is_default else f"the settings of {recommendation.name}"
    error = "" if record.noise is None else f" (± {points(Z95 * record.noise, signed=False)} points at 95 %)"
    result = f"{percent(accuracy)} validation accuracy{error} in a single run"
    baseline = default_recipe_trial(record)
    if recommendation.is_default or baseline is None or baseline.val_accuracy is None:
        comparison = ""
    else:
        comparison = f", {_single_run_comparison(accuracy - baseline.val_accuracy, record.noise)}"
    return f"For now, use {recommended}: {result}{comparison}; final runs with new seeds have not confirmed this yet."


def _single_run_comparison(difference: float, noise: float | None) -> str:
    """Returns the comparison of one run with one run of the default recipe on the same validation images."""
    text = f"{points(difference)} points relative to a single run of the default recipe"
    # The error of a difference of independent accuracies; the same validation images can only make it smaller.
    if noise is not None and abs(difference) < Z95 * math.sqrt(2.0) * noise:
        return f"{text}, which is within validation noise"
    return text
