"""Conclusions from fit profiles as sentences: what they suggest, how they compare, and the uncertainty.

Every statement follows from the numbers and their standard errors. Differences within two standard errors are called
ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nbt.fit.fit_profile import FitProfile
from nbt.report.fit.measures import (
    GAIN,
    MEASURE_LABELS,
    accuracy_text,
    gain_of_unit,
    gain_text,
    has_measure,
    has_random_weights,
    images,
    knee_unit_count,
    profile_names,
)
from nbt.report.formatting import format_number, join_words, one_line, percent, pluralise, points
from nbt.tuning.intervals import accuracy_standard_error

RANDOM_ACCURACY_CEILING = 0.95
"""Accuracy of random features from which on a target is too easy for a probe to distinguish weights."""

MIN_IMAGES_PER_CLASS = 5
"""Mean number of sampled images per class below which probes are underestimated."""

DEAD_CHANNELS_THRESHOLD = 0.05
"""Share of dead channels from which on the text mentions them."""

# Measures, besides the ridge probe, by which backbones are ranked: those that have shown skill, of the whole network.
_RANKING_MEASURES = ("knn_accuracy", "logme", "h_score_regularized", "gbc")


def suggestions(profile: FitProfile) -> list[str]:
    """Returns the suggestions of one profile as sentences, based on ridge probes and their standard errors."""
    if not has_measure(profile, GAIN):
        return ["The profile has no ridge probe of the features and makes no suggestion."]
    if has_random_weights(profile):
        return [
            _separation_sentence(profile),
            "These weights are random: there is nothing pretrained to measure.",
        ]
    return [
        _separation_sentence(profile),
        _gain_sentence(profile),
        *_depth_sentences(profile),
        *_dead_channel_sentences(profile),
        *_gradient_sentences(profile),
    ]


def uncertainty_text(profiles: Sequence[FitProfile]) -> str:
    """Returns a paragraph on the uncertainty of the numbers and its limits."""
    counts = sorted({images(profile) for profile in profiles})
    shown = (
        pluralise(counts[0], "training image") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} training images"
    )
    few = any(images(profile) < MIN_IMAGES_PER_CLASS * profile.scalars.get("classes", 0.0) for profile in profiles)
    scarce = " With few images per class, all probes underestimate the features." if few else ""
    return (
        f"Uncertainty: ± is one binomial standard error over {shown}; it does not include the variation between random"
        f" initialisations. Scores without ± have no standard error.{scarce} A probe of frozen features does not"
        " measure the accuracy after fine-tuning, which only training shows."
    )


def comparison(profiles: Sequence[FitProfile]) -> list[str]:
    """Returns the comparison of several profiles as sentences; an empty list for fewer than two.

    Profiles are compared by their ridge probe; those within two standard errors of the best are tied with it.
    """
    named = [
        pair for pair in zip(profile_names(profiles), profiles, strict=True) if has_measure(pair[1], "ridge_accuracy")
    ]
    if len(named) < 2:
        return []
    named.sort(key=lambda pair: -pair[1].scalars["ridge_accuracy"])
    return [_leader_sentence(named), *_other_measures_sentences(named), *_image_size_sentences(profiles)]


def _leader_sentence(named: Sequence[tuple[str, FitProfile]]) -> str:
    """Returns the sentence on the highest ridge probe accuracy and the profiles tied with it."""
    (best, first), rest = named[0], named[1:]
    highest, n = first.scalars["ridge_accuracy"], images(first)
    tied: list[str] = []
    behind: list[str] = []
    for name, profile in rest:
        other = profile.scalars["ridge_accuracy"]
        error = math.hypot(accuracy_standard_error(highest, n), accuracy_standard_error(other, images(profile)))
        text = f"{name} ({points(highest - other, signed=False)} ± {points(error, signed=False)} points lower)"
        (tied if highest - other <= 2 * error else behind).append(text)
    top = f"{best} has the highest ridge probe accuracy, {accuracy_text(highest, n)}"
    differ = "differs" if len(behind) == 1 else "differ"
    if not tied:
        return f"{top}; {join_words(behind)} {differ} from it by more than two standard errors."
    also = f"; {join_words(behind)} {differ} by more" if behind else ""
    return f"{top}, tied within two standard errors with {join_words(tied)}{also}."


def _other_measures_sentences(named: Sequence[tuple[str, FitProfile]]) -> list[str]:
    """Returns a sentence on which backbone leads by the other measures, which have no standard errors."""
    leaders: dict[str, list[str]] = {}
    for measure in _RANKING_MEASURES:
        if all(has_measure(profile, measure) for _, profile in named):
            leader = max(named, key=lambda pair: pair[1].scalars[measure])[0]
            leaders.setdefault(leader, []).append(MEASURE_LABELS[measure])
    best = named[0][0]
    agreeing = leaders.pop(best, [])
    if not leaders:
        sentence = f"Every other measure that all backbones have ({join_words(agreeing)}) also ranks {best} first."
        return [sentence] if agreeing else []
    against = join_words([f"{name} by {join_words(measures)}" for name, measures in leaders.items()])
    agree = f"{best} is first by {join_words(agreeing)} too, but " if agreeing else ""
    return [f"The other measures do not all agree: {agree}{against}. They have no standard errors."]


def _image_size_sentences(profiles: Sequence[FitProfile]) -> list[str]:
    sizes = sorted({int(size) for p in profiles if (size := p.scalars.get("image_size")) is not None})
    if len(sizes) < 2:
        return []
    return [f"The image sizes differ ({join_words([str(size) for size in sizes])} px)."]


def _separation_sentence(profile: FitProfile) -> str:
    n, classes, majority = images(profile), profile.scalars.get("classes"), _majority_class_share(profile.scalars)
    pretrained, random_init = (
        float(profile.layers[name].iloc[-1]) for name in ("ridge_accuracy", "ridge_accuracy_random")
    )
    features = "features" if has_random_weights(profile) else "pretrained features"
    class_text = "the classes" if classes is None else f"the {int(classes)} classes"
    chance = "" if majority is None else f" (always predicting the largest class: {percent(majority)})"
    return (
        f"A linear probe on the {features} of the last unit distinguishes {class_text} with an accuracy of "
        f"{accuracy_text(pretrained, n)}{chance}, on those of random weights with {accuracy_text(random_init, n)}."
    )


def _majority_class_share(scalars: Mapping[str, float]) -> float | None:
    """Returns the share of the largest class, or None if it is unknown."""
    try:
        return scalars["smallest_class"] * scalars["imbalance"] / scalars["train_images"]
    except (KeyError, ZeroDivisionError):
        return None


def _gain_sentence(profile: FitProfile) -> str:
    gain, error = gain_of_unit(profile, -1)
    text = f"{gain_text(profile)} points"
    if abs(gain) <= 2 * error:
        easy = " Random features are already close to full accuracy: the target is too easy to distinguish weights."
        near = float(profile.layers["ridge_accuracy_random"].iloc[-1]) >= RANDOM_ACCURACY_CEILING
        return f"That is a tie ({text}): the probe shows no advantage of these weights at the last unit.{easy * near}"
    if gain < 0:
        return (
            f"The pretrained features are worse than random ones ({text}): transfer fewer units, or check that the "
            "images match the weights (size, colours)."
        )
    return f"The pretrained weights exceed random ones by {text.lstrip('+')}."


def _depth_sentences(profile: FitProfile) -> list[str]:
    """Returns a sentence on the unit up to which the gain grows and on the units above it."""
    knee, units = knee_unit_count(profile), len(profile.layers)
    if knee is None:
        return []
    if knee == 0:
        return ["At no depth does the gain over random weights exceed the noise: the profile suggests no depth."]
    if knee >= units:
        return [f"The gain still grows at the last of {units} units: the profile suggests transferring all units."]
    top, them = ("unit", "it") if units - knee == 1 else (f"{units - knee} units", "them")
    where = f"unit {knee} of {units} ({one_line(str(profile.layers['unit'].iloc[knee - 1]))})"
    (peak, peak_error), (last, last_error) = gain_of_unit(profile, knee - 1), gain_of_unit(profile, -1)
    if peak - last > 2 * math.hypot(peak_error, last_error):
        above = (
            f"up to the last unit it falls by {points(peak - last, signed=False)} points: the top {top} may be "
            f"specific to the source, and re-initialising {them} (transfer_depth around {knee / units:.2f}) is worth a "
            "trial"
        )
    else:
        above = f"the contribution of the top {top} is within noise: whether to transfer {them} remains open"
    return [f"The gain grows up to {where}; {above}."]


def _dead_channel_sentences(profile: FitProfile) -> list[str]:
    dead = profile.scalars.get("dead_channels", 0.0)
    if dead < DEAD_CHANNELS_THRESHOLD:
        return []
    return [f"{percent(dead, 0)} of the channels are never active on these images."]


def _gradient_sentences(profile: FitProfile) -> list[str]:
    """Returns a sentence on the unit with the largest relative gradient norm; none for profiles that lack it."""
    ratios = profile.layers["relative_gradient"]
    if ratios.notna().sum() < 2:
        return []
    top = int(ratios.argmax())
    return [
        f"The gradient of the probe's loss is largest, relative to the weights, at unit {top + 1} of {len(ratios)} "
        f"({one_line(str(profile.layers['unit'].iloc[top]))}): {format_number(ratios.max() / ratios.median())} times "
        "the median over the units. This is a diagnostic, which no prior uses."
    ]
