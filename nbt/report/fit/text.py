"""Words on fit profiles: what the measures mean, what they suggest, and how sure that is.

Every claim follows from the numbers and their standard errors. That of an accuracy is binomial; that of a difference is
taken as if its sides were independent, which is wide rather than narrow where both saw the same images. What is within
two standard errors is called a tie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nbt.fit.fit_profile import FitProfile
from nbt.report.formatting import DASH, format_number, join_words, one_line, percent, pluralise, points
from nbt.tuning.intervals import accuracy_standard_error

RANDOM_ACCURACY_CEILING = 0.95
"""From this accuracy of random features on, a target is too easy for a probe to tell weights apart."""

MIN_IMAGES_PER_CLASS = 5
"""Sampled images a class, on average, below which a probe learns from very little."""

DEAD_CHANNELS_THRESHOLD = 0.05
"""Share of dead channels from which on they are worth a sentence."""


@dataclass(frozen=True)
class Measure:
    """One number of a profile, for people.

    Attributes:
        name: Of the scalar.
        label: What tables call it.
        meaning: In plain words, with the direction that is better.
        kind: "accuracy" (a share with a standard error), "share", "gain" (a difference of two accuracies), "depth" (a
            share of the units) or "score".
    """

    name: str
    label: str
    meaning: str
    kind: str = "score"


@dataclass(frozen=True)
class MeasureRow:
    """One measure of one profile, for a table."""

    label: str
    value: str
    meaning: str


GAIN = "gain"
"""Stands for `ridge_accuracy` minus `ridge_accuracy_random`, which is no scalar of its own."""

MEASURES = (
    Measure(
        "ridge_accuracy",
        "ridge probe",
        "share of the sampled images that a linear classifier on the frozen features gets right, each predicted from"
        " all others; higher is better",
        "accuracy",
    ),
    Measure(
        GAIN,
        "gain over random",
        "points by which that is better than on random weights of the same architecture; higher is better",
        "gain",
    ),
    Measure(
        "knn_accuracy",
        "kNN",
        "share of the sampled images whose nearest neighbours among the features vote for their class; higher is"
        " better",
        "accuracy",
    ),
    Measure(
        "logme",
        "LogME",
        "log evidence of a Bayesian linear model of the labels on the features, an image; higher is better",
    ),
    Measure(
        "h_score_regularized",
        "H-score",
        "how much of the features' variance is between classes (regularised); higher is better",
    ),
    Measure(
        "nleep",
        "N-LEEP",
        "log likelihood of the labels given clusters of the features; at most 0, higher is better",
    ),
    Measure(
        "leep",
        "LEEP",
        "log likelihood of the labels given what the source's own classifier sees; at most 0, higher is better",
    ),
    Measure(
        "gbc",
        "GBC",
        "minus how much the classes overlap as Gaussians, summed over pairs; at most 0, higher is better",
    ),
    Measure(
        "transrate",
        "TransRate",
        "how much shorter a code of the features gets when the classes are known; depends on their scale; higher is"
        " better",
    ),
    Measure(
        "emd_similarity",
        "EMD similarity",
        "how near the target's classes lie to the source's among the features; 0 to 1, higher is better",
    ),
    Measure(
        "knee_depth",
        "knee",
        "unit up to which the gain over random weights grows beyond noise, of all units; 0 where there is none; higher"
        " is better: more of the network fits",
        "depth",
    ),
)
"""Columns of the table that compares backbones, in their order."""

_ADDITIONAL_MEASURES = (
    Measure("ridge_accuracy_random", "ridge probe, random weights", "what the gain is over", "accuracy"),
    Measure("knn_accuracy_random", "kNN, random weights", "to compare kNN with", "accuracy"),
    Measure("logme_random", "LogME, random weights", "to compare LogME with"),
    Measure("h_score", "H-score, plain", "near its upper end wherever images are few; higher is better"),
    Measure(
        "nce",
        "NCE",
        "minus what the source's class of an image leaves open of its label, in nats; at most 0, higher is better",
    ),
    Measure("mean_gain", "mean gain", "gain over random weights, averaged over all units; higher is better", "gain"),
    Measure(
        "mean_shift",
        "shift of means",
        "distance of the activations' means from those that BatchNorm keeps of the source, in its standard deviations;"
        " lower is closer",
    ),
    Measure(
        "variance_shift",
        "shift of variances",
        "the same of the spread, as a log ratio of standard deviations; lower is closer",
    ),
    Measure("dead_channels", "dead channels", "share of channels that never fire here; lower is better", "share"),
)
"""What the table of one profile has beside them."""

_LABELS = {measure.name: measure.label for measure in (*MEASURES, *_ADDITIONAL_MEASURES)}
# Measures that put several backbones in an order beside the ridge probe.
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
    """Returns how many images the accuracies rest on, 1 or more."""
    return max(1, int(profile.scalars.get("samples", profile.facts.get("samples", 1))))


def gain_of_unit(profile: FitProfile, unit: int) -> tuple[float, float]:
    """Returns the gain of a unit's ridge probe over random weights and its standard error, in accuracy."""
    row = profile.layers.iloc[unit]
    own, other = float(row["ridge_accuracy"]), float(row["ridge_accuracy_random"])
    if not (math.isfinite(own) and math.isfinite(other)):
        return math.nan, math.nan
    n = images(profile)
    return own - other, math.hypot(accuracy_standard_error(own, n), accuracy_standard_error(other, n))


def knee_unit_count(profile: FitProfile) -> int | None:
    """Returns the number of units (counted from the input) up to which gain grows, None where it is not known."""
    depth = profile.scalars.get("knee_depth", math.nan)
    return round(depth * len(profile.layers)) if math.isfinite(depth) else None


def profile_names(profiles: Sequence[FitProfile]) -> list[str]:
    """Returns what to call each profile: its backbone, with its weights where a backbone is there twice."""
    backbones = [one_line(str(profile.facts.get("backbone", "backbone"))) for profile in profiles]
    weights = [one_line(PurePath(str(profile.facts.get("weights", ""))).name) for profile in profiles]
    return [
        f"{backbone} [{weight}]" if backbones.count(backbone) > 1 else backbone
        for backbone, weight in zip(backbones, weights, strict=True)
    ]


def table_rows(profiles: Sequence[FitProfile]) -> list[dict[str, str]]:
    """Returns a row a profile for the table that compares them, its cells short; what no profile has is no column."""
    shown = _available_measures(profiles)
    return [
        {"backbone": name, **{_column_label(measure): _cell(profile, measure) for measure in shown}}
        for name, profile in zip(profile_names(profiles), profiles, strict=True)
    ]


def legend(profiles: Sequence[FitProfile]) -> list[tuple[str, str]]:
    """Returns (column, what it means) for each column of `table_rows`."""
    return [(_column_label(measure), measure.meaning) for measure in _available_measures(profiles)]


def measure_rows(profile: FitProfile) -> tuple[MeasureRow, ...]:
    """Returns all measures that a profile has, for a table of this one."""
    return tuple(
        MeasureRow(measure.label, value_text(profile, measure), measure.meaning)
        for measure in (*MEASURES, *_ADDITIONAL_MEASURES)
        if _has_measure(profile, measure.name)
    )


def value_text(profile: FitProfile, measure: Measure) -> str:
    """Returns a measure with its standard error where it has one; a dash where it is not known."""
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
    """Returns "61.0 % ± 1.5": an accuracy over n images with its binomial standard error in points."""
    return f"{percent(value)} ± {points(accuracy_standard_error(value, n), signed=False)}"


def missing_measure_lines(profiles: Sequence[FitProfile]) -> list[str]:
    """Returns a line for each reason for which measures are missing: which, and of which profiles."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, profile in zip(profile_names(profiles), profiles, strict=True):
        reasons: dict[str, list[str]] = {}
        for measure, reason in profile.left_out.items():
            reasons.setdefault(one_line(reason), []).append(_LABELS.get(measure, one_line(measure)))
        for reason, measures in reasons.items():
            groups.setdefault((join_words(measures), reason), []).append(name)
    return [
        f"{measures}{'' if len(who) == len(profiles) else ' of ' + join_words(who)}: {reason}"
        for (measures, reason), who in groups.items()
    ]


def suggestions(profile: FitProfile) -> list[str]:
    """Returns what one profile suggests, a sentence each; all follow from ridge probes and their standard errors."""
    if not _has_measure(profile, GAIN):
        return ["There is no ridge probe of the features, so this profile suggests nothing."]
    if profile.facts.get("weights") == "none":
        return [
            _separation_sentence(profile),
            "These weights are random themselves: there is nothing pretrained to measure.",
        ]
    return [
        _separation_sentence(profile),
        _gain_sentence(profile),
        *_depth_sentences(profile),
        *_dead_channel_sentences(profile),
    ]


def uncertainty_text(profiles: Sequence[FitProfile]) -> str:
    """Returns what the numbers rest on, and what they do not cover."""
    counts = sorted({images(profile) for profile in profiles})
    shown = (
        pluralise(counts[0], "training image") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} training images"
    )
    few = any(images(profile) < MIN_IMAGES_PER_CLASS * profile.scalars.get("classes", 0.0) for profile in profiles)
    scarce = " Few images a class make every probe look worse than it would with more." if few else ""
    return (
        f"How sure: ± is one binomial standard error over {shown}; it does not cover that other random weights give"
        f" other accuracies, and the scores without ± have none.{scarce} A probe of frozen features is not the accuracy"
        " after fine-tuning: take it as a start that training has to confirm."
    )


def comparison(profiles: Sequence[FitProfile]) -> list[str]:
    """Returns how several profiles compare, a sentence each; none for fewer than two.

    The ridge probe leads; what is within two standard errors of the best is a tie with it.
    """
    named = [
        pair for pair in zip(profile_names(profiles), profiles, strict=True) if _has_measure(pair[1], "ridge_accuracy")
    ]
    if len(named) < 2:
        return []
    named.sort(key=lambda pair: -pair[1].scalars["ridge_accuracy"])
    return [_leader_sentence(named), *_other_measures_sentences(named), *_image_size_sentences(profiles)]


def _leader_sentence(named: Sequence[tuple[str, FitProfile]]) -> str:
    """Returns which has the highest ridge probe, and which cannot be told from it."""
    (best, first), rest = named[0], named[1:]
    own, n = first.scalars["ridge_accuracy"], images(first)
    tied: list[str] = []
    behind: list[str] = []
    for name, profile in rest:
        other = profile.scalars["ridge_accuracy"]
        error = math.hypot(accuracy_standard_error(own, n), accuracy_standard_error(other, images(profile)))
        text = f"{name} ({points(own - other, signed=False)} ± {points(error, signed=False)} points behind)"
        (tied if own - other <= 2 * error else behind).append(text)
    top, are = f"{best} has the highest ridge probe, {accuracy_text(own, n)}", "is" if len(behind) == 1 else "are"
    if not tied:
        return f"{top}; {join_words(behind)} {are} below it by more than two standard errors."
    also = f"; {join_words(behind)} {are} below that" if behind else ""
    return f"{top}, but it is a tie with {join_words(tied)}: less than two standard errors{also}."


def _other_measures_sentences(named: Sequence[tuple[str, FitProfile]]) -> list[str]:
    """Returns which other measures put the same one first, and which do not; they have no standard errors."""
    leaders: dict[str, list[str]] = {}
    for measure in _RANKING_MEASURES:
        if all(_has_measure(profile, measure) for _, profile in named):
            leader = max(named, key=lambda pair: pair[1].scalars[measure])[0]
            leaders.setdefault(leader, []).append(_LABELS[measure])
    best = named[0][0]
    agreeing = leaders.pop(best, [])
    if not leaders:
        which = f"Every other measure that all of them have ({join_words(agreeing)}) puts {best} first as well."
        return [which] if agreeing else []
    against = join_words([f"{name} by {join_words(measures)}" for name, measures in leaders.items()])
    agree = f"{best} is first by {join_words(agreeing)} too, but " if agreeing else ""
    return [f"The other measures do not all agree: {agree}{against}. They have no standard errors here."]


def _image_size_sentences(profiles: Sequence[FitProfile]) -> list[str]:
    sizes = sorted({int(size) for p in profiles if (size := p.scalars.get("image_size")) is not None})
    if len(sizes) < 2:
        return []
    return [f"They see images of different sizes ({join_words([str(size) for size in sizes])} px)."]


def _separation_sentence(profile: FitProfile) -> str:
    n, classes, guess = images(profile), profile.scalars.get("classes"), _majority_class_share(profile.scalars)
    own, other = (float(profile.layers[name].iloc[-1]) for name in ("ridge_accuracy", "ridge_accuracy_random"))
    what = "the classes" if classes is None else f"the {int(classes)} classes"
    chance = "" if guess is None else f" (always guessing the largest class: {percent(guess)})"
    return (
        f"A linear probe on the pretrained features of the last unit tells {what} apart with "
        f"{accuracy_text(own, n)}{chance}, on those of random weights with {accuracy_text(other, n)}."
    )


def _majority_class_share(scalars: Mapping[str, float]) -> float | None:
    """Returns the share of the largest class."""
    try:
        return scalars["smallest_class"] * scalars["imbalance"] / scalars["train_images"]
    except (KeyError, ZeroDivisionError):
        return None


def _gain_sentence(profile: FitProfile) -> str:
    gain, error = gain_of_unit(profile, -1)
    text = f"{_gain_text(profile)} points"
    if abs(gain) <= 2 * error:
        easy = " Random features are near the ceiling already: this target is too easy for the probe to tell."
        near = float(profile.layers["ridge_accuracy_random"].iloc[-1]) >= RANDOM_ACCURACY_CEILING
        return f"That is a tie ({text}): the probe sees no advantage of these weights at the output.{easy * near}"
    if gain < 0:
        return (
            f"The pretrained features are worse than random ones ({text}): transfer less, or look whether images and "
            "weights belong together (size, colours)."
        )
    return f"The pretrained weights are ahead of random ones by {text.lstrip('+')}."


def _depth_sentences(profile: FitProfile) -> list[str]:
    """Returns up to which unit the gain grows, and what that says of the units above."""
    knee, units = knee_unit_count(profile), len(profile.layers)
    if knee is None:
        return []
    if knee == 0:
        return ["At no depth does a gain over random weights stand out of the noise: how much to transfer is open."]
    if knee >= units:
        return [f"The gain still grows at the last of {units} units: the profile speaks for transferring everything."]
    one = units - knee == 1
    top, them = "unit" if one else f"{units - knee} units", "it" if one else "them"
    where = f"unit {knee} of {units} ({one_line(str(profile.layers['unit'].iloc[knee - 1]))})"
    (peak, peak_error), (last, last_error) = gain_of_unit(profile, knee - 1), gain_of_unit(profile, -1)
    if peak - last > 2 * math.hypot(peak_error, last_error):
        above = (
            f"by the last it falls by {points(peak - last, signed=False)} points: the top {top} may be the source's "
            f"own, and starting {them} afresh (transfer_depth around {knee / units:.2f}) is worth a trial"
        )
    else:
        add = "adds" if one else "add"
        above = f"what the top {top} {add} is within noise: whether to transfer {them} cannot be told here"
    return [f"The gain grows up to {where}; {above}."]


def _dead_channel_sentences(profile: FitProfile) -> list[str]:
    dead = profile.scalars.get("dead_channels", 0.0)
    if dead < DEAD_CHANNELS_THRESHOLD:
        return []
    return [f"{percent(dead, 0)} of the channels never fire on these images: that part of the network is idle."]


def _gain_text(profile: FitProfile) -> str:
    gain, error = gain_of_unit(profile, -1)
    return f"{points(gain)} ± {points(error, signed=False)}"


def _column_label(measure: Measure) -> str:
    return f"{measure.label}, %" if measure.kind in ("accuracy", "gain") else measure.label


def _cell(profile: FitProfile, measure: Measure) -> str:
    """Returns the text of a value without its unit, which the column has."""
    text = value_text(profile, measure).removesuffix(" points")
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
    "MeasureRow",
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
