"""The main result of a study: which settings to use, their test result, and the validation that chose them."""

from __future__ import annotations

import math

from nbt.metrics import DEFAULT_METRIC, METRICS, Metric
from nbt.report.formatting import difference_interval, difference_number, pluralise, score_interval, score_text
from nbt.report.metric_text import bounds_text, difference_bounds_text, difference_text, guess_text, value_text
from nbt.report.study.recommendation import StudyRecommendation, default_recipe_trial
from nbt.report.study.test_section import difference_sentence
from nbt.report.study.transfer_evidence import is_transfer_advised
from nbt.tuning.finals.test_results import TestResult, TestResults, test_results
from nbt.tuning.finals.winner import CHEAPER_REASON
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
    if is_transfer_advised(record, recommendation) is False:
        advice = _advice_from_scratch(recommendation.name, recommendation.final.versus_default)
    results = test_results(record)
    result = (
        _validation_text(record, recommendation) if results is None else _test_text(results, recommendation.is_default)
    )
    return f"{advice}: {result}."


def _advice_from_scratch(name: str, versus_default: Interval | None) -> str:
    """Returns the advice where settings that start from random weights are recommended."""
    if versus_default is not None and versus_default.low is not None and versus_default.low > 0:
        return f"Do not transfer, train from random weights with the settings of {name}"
    return f"The pretrained weights show no benefit: train from random weights with the settings of {name}"


def verdict_line(record: StudyRecord) -> str:
    """Returns the name of a study and the verdict of its final runs, told from the test results beside it."""
    if not record.verdict:
        return f"{record.config.name}: {record.recommended or 'recommended settings'} is recommended."
    return f"{record.config.name}, final runs on validation images: {record.verdict}"


def validation_sentences(record: StudyRecord, recommendation: StudyRecommendation | None) -> tuple[str, ...]:
    """Returns the validation of the recommended settings and its difference to the test result, if there is one.

    Where final runs and test images do not agree on the default recipe, a sentence says which says what.
    """
    results = test_results(record)
    if recommendation is None or recommendation.final is None or results is None:
        return ()
    optimism = () if results.optimism is None else (_optimism_sentence(results.recommended.metric, results.optimism),)
    _, begin, rest = (record.verdict or "").partition(CHEAPER_REASON)
    reason = (f"In these runs, {begin[:1].lower()}{begin[1:]}{rest}",) if begin else ()
    return (
        f"In the final runs: {_validation_text(record, recommendation)}.",
        *reason,
        *_disagreement(results, recommendation.final.versus_default),
        *optimism,
    )


def _disagreement(results: TestResults, versus_default: Interval | None) -> tuple[str, ...]:
    """Returns a sentence on the test images where they differ beyond chance and the final runs do not, or conversely.

    Args:
        results: The test results.
        versus_default: Difference of the scores to the default recipe in the final runs.
    """
    if results.difference is None or versus_default is None:
        return ()
    on_test = _direction(results.difference)
    if not METRICS[results.recommended.metric].higher_is_better:
        on_test = -on_test
    if on_test == _direction(versus_default):
        return ()
    return (
        f"{difference_sentence(results)} This is one training of each on other images, so that it need not agree with "
        "the final runs, which decide.",
    )


def _direction(difference: Interval) -> int:
    """Returns 1 or -1 if the whole interval is above or below 0, else 0."""
    if difference.low is None or difference.high is None or difference.low <= 0.0 <= difference.high:
        return 0
    return 1 if difference.mean > 0.0 else -1


def _validation_text(record: StudyRecord, recommendation: StudyRecommendation) -> str:
    final, metric = recommendation.final, METRICS[record.config.metric]
    assert final is not None
    comparison = comparison_to_default(final.versus_default, *reference_of(record, final))
    if recommendation.is_default:
        comparison = "; no settings of the search have a better mean"
    return f"{_value_with_interval(final.validation, metric)}{comparison}"


def _test_text(results: TestResults, is_default: bool) -> str:
    """Returns the test results, e.g. "70.1 % test accuracy (95 % interval ..., 900 images); the default recipe ..."."""
    metric = results.recommended.metric
    others = [("the default recipe", None if is_default else results.baseline), (guess_text(metric), results.majority)]
    compared = [
        f"{name} {value_text(metric, other.value.mean)} ({bounds_text(metric, other.value)})"
        for name, other in others
        if other is not None and other.value is not None
    ]
    return "; ".join([_test_value_text(results.recommended), *_without_copies(results.recommended), *compared])


def _without_copies(result: TestResult) -> list[str]:
    """Returns the result without the test images that have a copy in training or validation; nothing without copies."""
    rest = result.without_copies
    if rest is None:
        return []
    if not rest.n:
        return ["every test image has a copy in training or validation"]
    copied = pluralise(result.n - rest.n, "test image")
    value = "unknown" if rest.value is None else value_text(rest.metric, rest.value.mean)
    bounds = "" if rest.value is None or rest.value.low is None else f" ({bounds_text(rest.metric, rest.value)})"
    return [f"{value}{bounds} without {copied} with a copy in training or validation"]


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
