"""Sentences: what to use, how good it is, how sure that is, and how it compares to the default recipe."""

from __future__ import annotations

import math

from nbt.report.formatting import format_interval, join_words, percent, pluralise, points, points_interval
from nbt.report.study.recommendation import StudyRecommendation, default_recipe_trial
from nbt.settings import TransferSettings
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import FinalRecord, StudyRecord, TestRecord

Z95 = 1.96
"""Standard errors in half a 95 % interval."""


def headline(record: StudyRecord, choice: StudyRecommendation | None) -> str:
    """Returns the sentence a reader who reads one sentence should read."""
    if choice is None:
        return "Nothing can be recommended yet: no trial has run to its full length."
    if choice.final is None:
        return _headline_before_finals(record, choice)
    what = "Use the default recipe" if choice.is_default else f"Use the settings of {choice.name}"
    return f"{what}: {_accuracy_with_interval(choice.final.validation)}{_default_comparison(choice, choice.final)}."


def _accuracy_with_interval(validation: Interval) -> str:
    """Returns how good and how sure, e.g. "70.6 % validation accuracy (95 % interval ..., 5 seeds)"."""
    good = f"{percent(validation.mean)} validation accuracy"
    if validation.low is None:
        return f"{good} (one seed, so without an interval)"
    return f"{good} (95 % interval {format_interval(validation)}, {pluralise(validation.n, 'seed')})"


def _default_comparison(choice: StudyRecommendation, final: FinalRecord) -> str:
    if choice.is_default:
        return "; nothing that the search found has a better mean"
    return comparison_to_default(final.versus_default)


def comparison_to_default(versus: Interval | None) -> str:
    """Returns the second half of a sentence on a paired difference to the default recipe.

    It says "better" or "worse" only where the whole 95 % interval is on one side of zero.
    """
    if versus is None:
        return "; the default recipe was not run beside it"
    if versus.low is None or versus.high is None:
        return f"; it cannot be told apart from the default recipe by one seed ({points(versus.mean)} points)"
    bounds = f"95 % interval {points_interval(versus)}"
    if versus.low > 0:
        return f", {points(versus.mean, signed=False)} points better than the default recipe ({bounds})"
    if versus.high < 0:
        return f", {points(versus.mean, signed=False)} points worse than the default recipe ({bounds})"
    return f"; it cannot be told apart from the default recipe ({points(versus.mean)} points, {bounds})"


def _headline_before_finals(record: StudyRecord, choice: StudyRecommendation) -> str:
    assert choice.trial is not None, "before the finals a choice is a trial"
    accuracy = choice.trial.val_accuracy or 0.0
    what = "the default recipe" if choice.is_default else choice.name
    error = "" if record.noise is None else f" (± {points(Z95 * record.noise, signed=False)} points at 95 %)"
    good = f"{percent(accuracy)} validation accuracy{error} in a single run"
    baseline = default_recipe_trial(record)
    if choice.is_default or baseline is None or baseline.val_accuracy is None:
        against = ""
    else:
        against = f", {_single_run_comparison(accuracy - baseline.val_accuracy, record.noise)}"
    return f"For now, use {what}: {good}{against}; final runs on new seeds have not confirmed it yet."


def _single_run_comparison(difference: float, noise: float | None) -> str:
    """Returns how one run compares to one run of the default recipe, on the same validation images."""
    text = f"{points(difference)} points against the default recipe's single run"
    # Two errors of the same size; that both saw the same images makes the true error smaller, never larger.
    if noise is not None and abs(difference) < Z95 * math.sqrt(2.0) * noise:
        return f"{text}, no more than validation noise alone can make"
    return text


def recipe_sentence(settings: TransferSettings) -> str:
    """Returns what the recipe does, for readers who do not know the names of the settings."""
    parts = [_transfer_text(settings.transfer_depth), _frozen_text(settings.frozen_depth)]
    if settings.sp_mix > 0:
        parts.append(f"pulls towards them with {percent(settings.sp_mix, 0)} of the weight decay (L2-SP)")
    slowest = min(settings.layer_lr_shape)
    if len(set(settings.layer_lr_shape)) > 1 and settings.frozen_depth < 1.0:
        where = ("input", "middle", "top")[settings.layer_lr_shape.index(slowest)]
        parts.append(f"learns slowest at the {where} of the backbone ({10**slowest:.2g} of the body's rate)")
    return f"It {', '.join(parts[:-1])} and {parts[-1]}."


def _transfer_text(depth: float) -> str:
    if depth <= 0.0:
        return "starts from random weights"
    if depth >= 1.0:
        return "keeps all pretrained weights"
    return f"keeps the pretrained weights of the first {percent(depth, 0)} of the units"


def _frozen_text(depth: float) -> str:
    if depth <= 0.0:
        return "freezes nothing"
    return "trains the head alone" if depth >= 1.0 else f"freezes the first {percent(depth, 0)} of the units"


def optimism(record: StudyRecord, choice: StudyRecommendation | None) -> str:
    """Returns what the chosen trial reached in the search beside its final mean, "" where one of them is missing.

    The best of many looks better than it is: the difference is what choosing on one validation split inflated.
    """
    if choice is None or choice.final is None or choice.trial is None or choice.trial.val_accuracy is None:
        return ""
    full = record.counts()["complete"]
    if full < 2:
        return ""
    change = choice.final.validation.mean - choice.trial.val_accuracy
    return (
        f"In the search {choice.name} reached {percent(choice.trial.val_accuracy)} on its one split, picked among "
        f"{full} full-length trials; on new seeds and splits its mean is {percent(choice.final.validation.mean)} "
        f"({points(change)} points)."
    )


def test_sentence(record: StudyRecord) -> str:
    """Returns the result on test images with its Wilson interval, and how often test was looked at."""
    named = {test.name: test for test in record.test}
    recommended, baseline = named.get("recommended"), named.get("baseline")
    if recommended is None:
        return _no_test_sentence(record.test_evaluations)
    text = f"On {recommended.n} test images the recommendation reaches {_test_accuracy_text(recommended)}"
    if baseline is not None:
        text += f", the default recipe {_test_accuracy_text(baseline)}; {_interval_comparison(recommended.accuracy, baseline.accuracy)}"
    return f"{text}. {_test_evaluations_sentence(record.test_evaluations)}"


def _no_test_sentence(looks: int) -> str:
    if looks == 0:
        return "The test images have not been looked at."
    often = "once" if looks == 1 else f"{looks} times"
    return f"The test images were evaluated {often} in this study, but not for this recommendation."


def _test_accuracy_text(test: TestRecord) -> str:
    return f"{percent(test.accuracy.mean)} (95 % Wilson interval {format_interval(test.accuracy)})"


def _interval_comparison(one: Interval, other: Interval) -> str:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return "there is no interval to compare them by"
    if one.low > other.high:
        return "the intervals do not overlap"
    if other.low > one.high:
        return "the default recipe is the better one here, and the intervals do not overlap"
    return "the intervals overlap, so the test images alone do not settle which is better"


def _test_evaluations_sentence(count: int) -> str:
    if count <= 1:
        return "The search never saw them; they were evaluated once, after the choice was made."
    return (
        f"They were evaluated {count} times in this study, once after each finished search: a recommendation made "
        "after an earlier look may be flattered by it."
    )


def ranking_sentence(record: StudyRecord) -> str:
    """Returns in which order the trials stand."""
    if record.noise is None:
        return "Full-length trials come first, by validation accuracy."
    return (
        f"Full-length trials come first, by validation accuracy; those within one standard error (± "
        f"{points(record.noise, signed=False)} points) of the best cannot be told apart by it and stand by validation "
        "loss."
    )


def importance_sentence(record: StudyRecord) -> str:
    """Returns what the importance of the dimensions rests on, or why there is none."""
    full = record.counts()["complete"]
    if not record.importance:
        return f"Too few full-length trials, or too alike, to tell which settings matter ({full} so far)."
    hint = " So few trials give a hint, not a finding." if full < 20 else ""
    return (
        f"Share of what sets the best of the {full} full-length trials apart from the others (PED-ANOVA); pruned and "
        f"failed trials are left out.{hint}"
    )


__all__ = [
    "comparison_to_default",
    "headline",
    "importance_sentence",
    "join_words",
    "optimism",
    "ranking_sentence",
    "recipe_sentence",
    "test_sentence",
]
