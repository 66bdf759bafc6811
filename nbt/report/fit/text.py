"""Text on fit profiles: the measures, their values, what they suggest, and the uncertainty.

Every statement follows from the numbers and their standard errors. The standard error of an accuracy is binomial. That
of a difference assumes independent errors, which is conservative where both accuracies rest on the same images.
Differences within two standard errors are called ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nbt.fit.fit_profile import FitProfile
from nbt.report.formatting import DASH, TemplateData, format_number, join_words, one_line, percent, pluralise, points
from nbt.tuning.intervals import accuracy_standard_error

RANDOM_ACCURACY_CEILING = 0.95
"""Accuracy of random features from which on a target is too easy for a probe to distinguish weights."""

MIN_IMAGES_PER_CLASS = 5
"""Mean number of sampled images per class below which probes are underestimated."""

DEAD_CHANNELS_THRESHOLD = 0.05
"""Share of dead channels from which on the text mentions them."""


@dataclass(frozen=True)
class Measure:
    """One measure of a profile and its description.

    Attributes:
        name: Name of the scalar.
        label: Label in tables.
        meaning: Description, including which direction is better.
        kind: "accuracy" (a share with a standard error), "share", "gain" (a difference of two accuracies), "depth" (a
            share of the units) or "score".
    """

    name: str
    label: str
    meaning: str
    kind: str = "score"


GAIN = "gain"
"""Name of `ridge_accuracy` minus `ridge_accuracy_random`, which is not stored as a scalar."""

MEASURES = (
    Measure(
        "ridge_accuracy",
        "ridge probe",
        "leave-one-out accuracy of a linear (ridge) classifier on the frozen features of the sampled images; higher is"
        " better",
        "accuracy",
    ),
    Measure(
        GAIN,
        "gain over random",
        "ridge probe accuracy minus that at random weights of the same architecture, in points; higher is better",
        "gain",
    ),
    Measure(
        "advantage",
        "advantage",
        "share of the probe's errors at random weights that the pretrained weights remove; below 0 if they add errors; "
        "higher is better",
        "share",
    ),
    Measure(
        "knn_accuracy",
        "kNN",
        "share of the sampled images whose nearest neighbours in feature space vote for their class; higher is better",
        "accuracy",
    ),
    Measure(
        "logme",
        "LogME",
        "log evidence per image of a Bayesian linear model of the labels given the features; higher is better",
    ),
    Measure(
        "h_score_regularized",
        "H-score",
        "between-class part of the variance of the features (regularised); higher is better",
    ),
    Measure(
        "nleep",
        "N-LEEP",
        "log likelihood of the labels given clusters of the features; at most 0, higher is better",
    ),
    Measure(
        "leep",
        "LEEP",
        "log likelihood of the labels given the outputs of the source classifier; at most 0, higher is better",
    ),
    Measure(
        "gbc",
        "GBC",
        "negative overlap of the classes as Gaussians, summed over pairs; at most 0, higher is better",
    ),
    Measure(
        "transrate",
        "TransRate",
        "reduction of the features' coding length by the class labels; depends on their scale; higher is better",
    ),
    Measure(
        "emd_similarity",
        "EMD similarity",
        "similarity of the target's and the source's classes in feature space; 0 to 1, higher is better",
    ),
    Measure(
        "knee_depth",
        "knee",
        "unit, of all units, up to which the gain over random weights grows beyond noise; 0 without a gain; higher is"
        " better",
        "depth",
    ),
)
"""Columns of the table that compares backbones, in order."""

_ADDITIONAL_MEASURES = (
    Measure("ridge_accuracy_random", "ridge probe, random weights", "reference of the gain", "accuracy"),
    Measure("knn_accuracy_random", "kNN, random weights", "reference of kNN", "accuracy"),
    Measure("logme_random", "LogME, random weights", "reference of LogME"),
    Measure("h_score", "H-score, plain", "close to its upper bound if images are few; higher is better"),
    Measure(
        "nce",
        "NCE",
        "negative conditional entropy of the labels given the source's classes, in nats; at most 0, higher is better",
    ),
    Measure("mean_gain", "mean gain", "gain over random weights, averaged over all units; higher is better", "gain"),
    Measure(
        "mean_shift",
        "shift of means",
        "distance of the activations' means from the BatchNorm means of the source, in its standard deviations; lower"
        " is closer",
    ),
    Measure(
        "variance_shift",
        "shift of variances",
        "log ratio of the activations' standard deviations to those of BatchNorm; lower is closer",
    ),
    Measure("dead_channels", "dead channels", "share of channels that are never active; lower is better", "share"),
)
"""Further measures in the table of a single profile."""

_LABELS = {measure.name: measure.label for measure in (*MEASURES, *_ADDITIONAL_MEASURES)}
# Measures, besides the ridge probe, by which backbones are ranked.
_RANKING_MEASURES = (
    "knn_accuracy",
    "logme",
    "h_score_regularized",
    "nleep",
    "leep",
    "gbc",
    "transrate",
    "emd_similarity",
)


def images(profile: FitProfile) -> int:
    """Returns the number of images on which the accuracies rest, at least 1."""
    return max(1, int(profile.scalars.get("samples", profile.facts.get("samples", 1))))


def gain_of_unit(profile: FitProfile, unit: int) -> tuple[float, float]:
    """Returns the gain of a unit's ridge probe over random weights and its standard error, as shares of accuracy."""
    row = profile.layers.iloc[unit]
    pretrained, random_init = float(row["ridge_accuracy"]), float(row["ridge_accuracy_random"])
    if not (math.isfinite(pretrained) and math.isfinite(random_init)):
        return math.nan, math.nan
    n = images(profile)
    error = math.hypot(accuracy_standard_error(pretrained, n), accuracy_standard_error(random_init, n))
    return pretrained - random_init, error


def knee_unit_count(profile: FitProfile) -> int | None:
    """Returns the number of units, from the input, up to which the gain grows, or None if it is unknown."""
    depth = profile.scalars.get("knee_depth", math.nan)
    return round(depth * len(profile.layers)) if math.isfinite(depth) else None


def profile_names(profiles: Sequence[FitProfile]) -> list[str]:
    """Returns a display name per profile: its backbone, followed by its weights if that backbone occurs twice."""
    backbones = [one_line(str(profile.facts.get("backbone", "backbone"))) for profile in profiles]
    weights = [one_line(PurePath(str(profile.facts.get("weights", ""))).name) for profile in profiles]
    return [
        f"{backbone} [{weight}]" if backbones.count(backbone) > 1 else backbone
        for backbone, weight in zip(backbones, weights, strict=True)
    ]


def table_rows(profiles: Sequence[FitProfile]) -> list[dict[str, str]]:
    """Returns one row per profile for the comparison table; measures that no profile has are left out."""
    shown = _available_measures(profiles)
    return [
        {"backbone": name, **{_column_label(measure): _cell(profile, measure) for measure in shown}}
        for name, profile in zip(profile_names(profiles), profiles, strict=True)
    ]


def legend(profiles: Sequence[FitProfile]) -> list[tuple[str, str]]:
    """Returns (column, description) for each column of `table_rows`."""
    return [(_column_label(measure), measure.meaning) for measure in _available_measures(profiles)]


def measure_rows(profile: FitProfile) -> tuple[TemplateData, ...]:
    """Returns all measures of a profile as table rows."""
    return tuple(
        TemplateData(label=measure.label, value=value_text(profile, measure), meaning=measure.meaning)
        for measure in (*MEASURES, *_ADDITIONAL_MEASURES)
        if _has_measure(profile, measure.name)
    )


def value_text(profile: FitProfile, measure: Measure) -> str:
    """Returns the value of a measure, with its standard error if it has one, or a dash if it is unknown."""
    if not _has_measure(profile, measure.name):
        return DASH
    if measure.name == GAIN:
        return f"{_gain_text(profile)} points"
    value = profile.scalars[measure.name]
    if measure.kind == "accuracy":
        return accuracy_text(value, images(profile))
    if measure.kind == "gain":
        return f"{points(value)} points"
    if measure.kind == "depth":
        return f"{knee_unit_count(profile)} of {len(profile.layers)}"
    if measure.kind == "share":
        return percent(value)
    return f"{value:.0f}" if abs(value) >= 1000 else format_number(value)


def accuracy_text(value: float, n: int) -> str:
    """Returns an accuracy over `n` images with its binomial standard error in points, e.g. "61.0 % ± 1.5"."""
    return f"{percent(value)} ± {points(accuracy_standard_error(value, n), signed=False)}"


def missing_measure_lines(profiles: Sequence[FitProfile]) -> list[str]:
    """Returns one line per reason for missing measures, naming the measures and the profiles."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, profile in zip(profile_names(profiles), profiles, strict=True):
        reasons: dict[str, list[str]] = {}
        for measure, reason in profile.left_out.items():
            reasons.setdefault(one_line(reason), []).append(_LABELS.get(measure, one_line(measure)))
        for reason, measures in reasons.items():
            groups.setdefault((join_words(measures), reason), []).append(name)
    return [
        f"{measures}{'' if len(names) == len(profiles) else ' of ' + join_words(names)}: {reason}"
        for (measures, reason), names in groups.items()
    ]


def suggestions(profile: FitProfile) -> list[str]:
    """Returns the suggestions of one profile as sentences, based on ridge probes and their standard errors."""
    if not _has_measure(profile, GAIN):
        return ["The profile has no ridge probe of the features and makes no suggestion."]
    if profile.facts.get("weights") == "none":
        return [
            _separation_sentence(profile),
            "These weights are random: there is nothing pretrained to measure.",
        ]
    return [
        _separation_sentence(profile),
        _gain_sentence(profile),
        *_depth_sentences(profile),
        *_dead_channel_sentences(profile),
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
        pair for pair in zip(profile_names(profiles), profiles, strict=True) if _has_measure(pair[1], "ridge_accuracy")
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
        if all(_has_measure(profile, measure) for _, profile in named):
            leader = max(named, key=lambda pair: pair[1].scalars[measure])[0]
            leaders.setdefault(leader, []).append(_LABELS[measure])
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
    class_text = "the classes" if classes is None else f"the {int(classes)} classes"
    chance = "" if majority is None else f" (always predicting the largest class: {percent(majority)})"
    return (
        f"A linear probe on the pretrained features of the last unit distinguishes {class_text} with an accuracy of "
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
    text = f"{_gain_text(profile)} points"
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


def _gain_text(profile: FitProfile) -> str:
    gain, error = gain_of_unit(profile, -1)
    return f"{points(gain)} ± {points(error, signed=False)}"


def _column_label(measure: Measure) -> str:
    unit = {"accuracy": ", %", "share": ", %", "gain": ", points"}.get(measure.kind, "")
    return measure.label + unit


def _cell(profile: FitProfile, measure: Measure) -> str:
    """Returns the text of a value without its unit, which is part of the column label."""
    text = value_text(profile, measure).removesuffix(" points").removesuffix(" %")
    return text.replace(" % ± ", "±").replace(" ± ", "±") if measure.kind != "depth" else text.replace(" of ", "/")


def _has_measure(profile: FitProfile, name: str) -> bool:
    if name == GAIN:
        return len(profile.layers) > 0 and math.isfinite(gain_of_unit(profile, -1)[0])
    return math.isfinite(profile.scalars.get(name, math.nan))


def _available_measures(profiles: Iterable[FitProfile]) -> list[Measure]:
    listed = list(profiles)
    return [measure for measure in MEASURES if any(_has_measure(profile, measure.name) for profile in listed)]


__all__ = [
    "MEASURES",
    "Measure",
    "accuracy_text",
    "uncertainty_text",
    "comparison",
    "gain_of_unit",
    "images",
    "knee_unit_count",
    "missing_measure_lines",
    "legend",
    "measure_rows",
    "profile_names",
    "suggestions",
    "table_rows",
    "value_text",
]
