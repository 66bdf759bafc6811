"""The sentence that says which settings to use: accuracy, uncertainty, and comparison to the default recipe."""

from __future__ import annotations

import math

from nbt.metrics import DEFAULT_METRIC, METRICS, Metric
from nbt.report.formatting import difference_interval, difference_number, pluralise, score_interval, score_text
from nbt.report.study.recommendation import StudyRecommendation, default_recipe_trial
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import FinalRecord, StudyRecord

Z95 = 1.96
"""Half width of a 95 % interval in standard errors."""


def headline(record: StudyRecord, recommendation: StudyRecommendation | None) -> str:
    """Returns the main result in one sentence."""
    if recommendation is None:
        return "Nothing can be recommended yet: no trial has run to its full length."
    if recommendation.final is None:
        return _headline_before_finals(record, recommendation)
    advice = "Use the default recipe" if recommendation.is_default else f"Use the settings of {recommendation.name}"
    comparison = comparison_to_default(recommendation.final.versus_default, *reference_of(record, recommendation.final))
    if recommendation.is_default:
        comparison = "; no settings of the search have a better mean"
    return (
        f"{advice}: {_value_with_interval(recommendation.final.validation, METRICS[record.config.metric])}{comparison}."
    )


def reference_of(record: StudyRecord, final: FinalRecord) -> tuple[Metric, float]:
    """Returns the metric of a study, and the mean score of the default recipe in the runs paired with a finalist's."""
    versus = final.versus_default
    return METRICS[record.config.metric], final.validation.mean - (0.0 if versus is None else versus.mean)


def _value_with_interval(validation: Interval, metric: Metric) -> str:
    """Returns value and interval, e.g. "70.6 % validation accuracy (95 % interval ..., 5 seeds)"."""
    value = f"{score_text(validation.mean, metric)} validation {metric.label}"
    if validation.low is None:
        return f"{value} (one seed, no interval)"
    return f"{value} (95 % interval {score_interval(validation, metric)}, {pluralise(validation.n, 'seed')})"


def comparison_to_default(
    versus: Interval | None, metric: Metric = METRICS[DEFAULT_METRIC], reference: float = 0.0
) -> str:
    """Returns the clause on a paired difference to the default recipe.

    It contains "better" or "worse" only if the whole 95 % interval is on one side of zero.

    Args:
        versus: The difference in score.
        metric: The metric of the study.
        reference: Score of the default recipe.
    """
    if versus is None:
        return "; the default recipe was not run for comparison"
    mean = f"{difference_number(versus.mean, metric, reference)} {metric.difference_unit}"
    amount = f"{difference_number(versus.mean, metric, reference, signed=False)} {metric.difference_unit}"
    if versus.low is None or versus.high is None:
        return f"; one seed does not distinguish it from the default recipe ({mean})"
    bounds = f"95 % interval {difference_interval(versus, metric, reference)}"
    if versus.low > 0:
        return f", {amount} better than the default recipe ({bounds})"
    if versus.high < 0:
        return f", {amount} worse than the default recipe ({bounds})"
    return f"; it cannot be distinguished from the default recipe ({mean}, {bounds})"


def _headline_before_finals(record: StudyRecord, recommendation: StudyRecommendation) -> str:
    assert recommendation.trial is not None, "before the finals a recommendation is a trial"
    metric = METRICS[record.config.metric]
    score = recommendation.trial.score(metric.name) or 0.0
    recommended = "the default recipe" if recommendation.is_default else f"the settings of {recommendation.name}"
    error = "" if record.noise is None else f" (± {error_text(Z95 * record.noise, metric, score)} at 95 %)"
    result = f"{score_text(score, metric)} validation {metric.label}{error} in a single run"
    baseline = default_recipe_trial(record)
    reference = None if baseline is None else baseline.score(metric.name)
    if recommendation.is_default or reference is None:
        comparison = ""
    else:
        comparison = f", {_single_run_comparison(score - reference, record.noise, metric, reference)}"
    return f"For now, use {recommended}: {result}{comparison}; final runs with new seeds have not confirmed this yet."


def error_text(error: float, metric: Metric, score: float) -> str:
    """Returns the error of a score in the unit of differences of the metric, e.g. "1.3 points"."""
    return f"{difference_number(error, metric, score, signed=False)} {metric.difference_unit}"


def _single_run_comparison(difference: float, noise: float | None, metric: Metric, reference: float) -> str:
    """Returns the comparison of one run with one run of the default recipe on the same validation images."""
    amount = f"{difference_number(difference, metric, reference)} {metric.difference_unit}"
    text = f"{amount} relative to a single run of the default recipe"
    # The error of a difference of independent scores; the same validation images can only make it smaller.
    if noise is not None and abs(difference) < Z95 * math.sqrt(2.0) * noise:
        return f"{text}, which is within validation noise"
    return text
