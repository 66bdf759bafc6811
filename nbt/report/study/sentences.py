"""Sentences of a study's report: recommendation, accuracy, uncertainty, and comparison to the default recipe."""

from __future__ import annotations

import math

from nbt.report.formatting import format_interval, percent, pluralise, points, points_interval
from nbt.report.study.recommendation import StudyRecommendation, default_recipe_trial
from nbt.settings import TransferSettings
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import FinalRecord, StudyRecord, TestRecord

Z95 = 1.96
"""Half width of a 95 % interval in standard errors."""


def headline(record: StudyRecord, recommendation: StudyRecommendation | None) -> str:
    """Returns the main result in one sentence."""
    if recommendation is None:
        return "Nothing can be recommended yet: no trial has run to its full length."
    if recommendation.final is None:
        return _headline_before_finals(record, recommendation)
    advice = "Use the default recipe" if recommendation.is_default else f"Use the settings of {recommendation.name}"
    comparison = _default_comparison(recommendation, recommendation.final)
    return f"{advice}: {_accuracy_with_interval(recommendation.final.validation)}{comparison}."


def _accuracy_with_interval(validation: Interval) -> str:
    """Returns accuracy and interval, e.g. "70.6 % validation accuracy (95 % interval ..., 5 seeds)"."""
    accuracy = f"{percent(validation.mean)} validation accuracy"
    if validation.low is None:
        return f"{accuracy} (one seed, no interval)"
    return f"{accuracy} (95 % interval {format_interval(validation)}, {pluralise(validation.n, 'seed')})"


def _default_comparison(recommendation: StudyRecommendation, final: FinalRecord) -> str:
    if recommendation.is_default:
        return "; no settings of the search have a better mean"
    return comparison_to_default(final.versus_default)


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


def recipe_sentence(settings: TransferSettings) -> str:
    """Returns a description of the recipe that does not require the names of the settings."""
    parts = [_transfer_text(settings.transfer_depth), _frozen_text(settings.frozen_depth)]
    if settings.sp_mix > 0:
        parts.append(f"uses {percent(settings.sp_mix, 0)} of the weight decay towards the pretrained weights (L2-SP)")
    slowest = min(settings.layer_lr_shape)
    if len(set(settings.layer_lr_shape)) > 1 and settings.frozen_depth < 1.0:
        where = ("input", "middle", "top")[settings.layer_lr_shape.index(slowest)]
        parts.append(f"has its lowest learning rate at the {where} of the backbone ({10**slowest:.2g} of body_lr)")
    return f"It {', '.join(parts[:-1])} and {parts[-1]}."


def _transfer_text(depth: float) -> str:
    if depth <= 0.0:
        return "starts from random weights"
    if depth >= 1.0:
        return "keeps all pretrained weights"
    return f"keeps the pretrained weights of the first {percent(depth, 0)} of the units"


def _frozen_text(depth: float) -> str:
    if depth <= 0.0:
        return "freezes no units"
    return "trains only the head" if depth >= 1.0 else f"freezes the first {percent(depth, 0)} of the units"


def optimism(record: StudyRecord, recommendation: StudyRecommendation | None) -> str:
    """Returns the comparison of the trial's accuracy in the search with its final mean, or "" if one is missing.

    The maximum over many trials is biased upwards; the difference shows by how much on one validation split.
    """
    if recommendation is None or recommendation.final is None or recommendation.trial is None:
        return ""
    in_search, in_finals = recommendation.trial.val_accuracy, recommendation.final.validation.mean
    full = record.counts()["complete"]
    if in_search is None or full < 2:
        return ""
    return (
        f"In the search, {recommendation.name} reached {percent(in_search)} on a single split, selected among {full} "
        f"full-length trials; over new seeds and splits its mean is {percent(in_finals)} "
        f"({points(in_finals - in_search)} points)."
    )


def test_sentence(record: StudyRecord) -> str:
    """Returns the test result with its Wilson interval and the number of test evaluations."""
    named = {test.name: test for test in record.test}
    recommended, baseline = named.get("recommended"), named.get("baseline")
    if recommended is None:
        return _no_test_sentence(record.test_evaluations)
    text = f"On {recommended.n} test images the recommendation reaches {_test_accuracy_text(recommended)}"
    if baseline is not None:
        comparison = _interval_comparison(recommended.accuracy, baseline.accuracy)
        text += f", the default recipe {_test_accuracy_text(baseline)}; {comparison}"
    return f"{text}. {_test_evaluations_sentence(record.test_evaluations)}"


def _no_test_sentence(evaluations: int) -> str:
    if evaluations == 0:
        return "The test images have not been evaluated."
    often = "once" if evaluations == 1 else f"{evaluations} times"
    return f"The test images were evaluated {often} in this study, but not for this recommendation."


def _test_accuracy_text(test: TestRecord) -> str:
    return f"{percent(test.accuracy.mean)} (95 % Wilson interval {format_interval(test.accuracy)})"


def _interval_comparison(recommended: Interval, baseline: Interval) -> str:
    if recommended.low is None or recommended.high is None or baseline.low is None or baseline.high is None:
        return "without intervals they cannot be compared"
    if recommended.low > baseline.high:
        return "the intervals do not overlap"
    if baseline.low > recommended.high:
        return "the default recipe is better on the test images, and the intervals do not overlap"
    return "the intervals overlap, so the test images do not show which is better"


def _test_evaluations_sentence(count: int) -> str:
    if count <= 1:
        return "The search did not use the test images; they were evaluated once, after the final selection."
    return (
        f"The test images were evaluated {count} times in this study, once after each finished search; a result after "
        "an earlier evaluation may be optimistic."
    )


def ranking_sentence(record: StudyRecord) -> str:
    """Returns the explanation of the order of the trials."""
    if record.noise is None:
        return "Full-length trials come first, by validation accuracy."
    return (
        "Full-length trials come first, by validation accuracy; those within one standard error (± "
        f"{points(record.noise, signed=False)} points) of the best are ordered by validation loss instead."
    )


def importance_sentence(record: StudyRecord) -> str:
    """Returns the basis of the importances, or the reason why there are none."""
    full = record.counts()["complete"]
    if not record.importance:
        return f"The full-length trials ({full} so far) are too few or too similar to estimate importances."
    hint = " With so few trials, this is a hint, not a finding." if full < 20 else ""
    return (
        f"Contribution of each setting to what distinguishes the best of the {full} full-length trials from the others "
        f"(PED-ANOVA); pruned and failed trials are left out.{hint}"
    )


__all__ = [
    "comparison_to_default",
    "headline",
    "importance_sentence",
    "optimism",
    "ranking_sentence",
    "recipe_sentence",
    "test_sentence",
]
