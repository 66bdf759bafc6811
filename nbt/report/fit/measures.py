"""The measures of fit profiles: their labels, meanings and values, as tables.

The standard error of an accuracy is binomial. That of a difference assumes independent errors, which is conservative
where both accuracies rest on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nbt.fit.fit_profile import FitProfile
from nbt.report.formatting import DASH, TemplateData, format_number, join_words, one_line, percent, points
from nbt.tuning.intervals import accuracy_standard_error


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
        "knn_accuracy",
        "kNN",
        "share of the sampled images whose nearest neighbours in feature space vote for their class; higher is better",
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
        "share of the probe's errors at random weights that the measured weights remove; below 0 if they add errors; "
        "higher is better",
        "share",
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
        "gbc",
        "GBC",
        "negative overlap of the classes as Gaussians, summed over pairs; at most 0, higher is better",
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
    Measure(
        "similarity",
        "similarity",
        "similarity of source and target, 0 to 1: by the distance of their class means relative to those of the source,"
        " or else the share of the labels' entropy that the source classifier explains; higher is more similar",
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

APPENDIX_TITLE = "Measures without demonstrated skill"

APPENDIX_MEASURES = (
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
        "nce",
        "NCE",
        "negative conditional entropy of the labels given the source's classes, in nats; at most 0, higher is better",
    ),
    Measure(
        "transrate",
        "TransRate",
        "reduction of the features' coding length by the class labels; depends on their scale; higher is better",
    ),
    Measure("h_score", "plain H-score", "close to its upper bound if images are few; higher is better"),
)
"""Measures that have a table of their own, `nbt.fit.OPTIONAL_MEASURES`; no conclusion uses them."""

MEASURE_LABELS = {measure.name: measure.label for measure in (*MEASURES, *_ADDITIONAL_MEASURES, *APPENDIX_MEASURES)}


def has_random_weights(profile: FitProfile) -> bool:
    """Returns whether the measured weights are random themselves, as with `--weights none`."""
    return profile.facts.get("weights") == "none"


def weights_names(profile: FitProfile) -> tuple[str, str]:
    """Returns what the measured weights are called, and the random ones that they are compared with."""
    if has_random_weights(profile):
        return "measured weights (random)", "other random weights"
    return "pretrained weights", "random weights"


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


def table_rows(profiles: Sequence[FitProfile], columns: Sequence[Measure] = MEASURES) -> list[dict[str, str]]:
    """Returns one row per profile for a comparison table; measures that no profile has are left out.

    Args:
        profiles: At least one profile.
        columns: `MEASURES` or `APPENDIX_MEASURES`.
    """
    shown = _available_measures(profiles, columns)
    return [
        {"backbone": name, **{_column_label(measure): _cell(profile, measure) for measure in shown}}
        for name, profile in zip(profile_names(profiles), profiles, strict=True)
    ]


def legend(profiles: Sequence[FitProfile], columns: Sequence[Measure] = MEASURES) -> list[tuple[str, str]]:
    """Returns (column, description) for each column of `table_rows`; an empty list if no profile has such a measure."""
    return [(_column_label(measure), measure.meaning) for measure in _available_measures(profiles, columns)]


def measure_rows(profile: FitProfile) -> tuple[TemplateData, ...]:
    """Returns the measures of a profile as table rows, without those of the appendix."""
    return _rows(profile, (*MEASURES, *_ADDITIONAL_MEASURES))


def appendix_rows(profile: FitProfile) -> tuple[TemplateData, ...]:
    """Returns the measures without demonstrated skill that a profile has as table rows."""
    return _rows(profile, APPENDIX_MEASURES)


def _rows(profile: FitProfile, listed: Iterable[Measure]) -> tuple[TemplateData, ...]:
    return tuple(
        TemplateData(label=measure.label, value=value_text(profile, measure), meaning=measure.meaning)
        for measure in listed
        if has_measure(profile, measure.name)
    )


def value_text(profile: FitProfile, measure: Measure) -> str:
    """Returns the value of a measure, with its standard error if it has one, or a dash if it is unknown."""
    if not has_measure(profile, measure.name):
        return DASH
    if measure.name == GAIN:
        return f"{gain_text(profile)} points"
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
            reasons.setdefault(one_line(reason), []).append(MEASURE_LABELS.get(measure, one_line(measure)))
        for reason, measures in reasons.items():
            groups.setdefault((join_words(measures), reason), []).append(name)
    return [
        f"{measures}{'' if len(names) == len(profiles) else ' of ' + join_words(names)}: {reason}"
        for (measures, reason), names in groups.items()
    ]


def optional_measures_sentence(profiles: Iterable[FitProfile]) -> str:
    """Returns how to get the optional measures; "" if they were requested, or measured by an earlier version."""
    names = {measure.name for measure in APPENDIX_MEASURES}
    if any(names & {*profile.scalars, *profile.left_out} for profile in profiles):
        return ""
    labels = join_words([measure.label for measure in APPENDIX_MEASURES])
    return f"nbt fit --all-measures also computes {labels}, which have shown no skill in ordering weights."


def gain_text(profile: FitProfile) -> str:
    """Returns the gain of the last unit with its standard error, in points."""
    gain, error = gain_of_unit(profile, -1)
    return f"{points(gain)} ± {points(error, signed=False)}"


def _column_label(measure: Measure) -> str:
    unit = {"accuracy": ", %", "share": ", %", "gain": ", points"}.get(measure.kind, "")
    return measure.label + unit


def _cell(profile: FitProfile, measure: Measure) -> str:
    """Returns the text of a value without its unit, which is part of the column label."""
    text = value_text(profile, measure).removesuffix(" points").removesuffix(" %")
    return text.replace(" % ± ", "±").replace(" ± ", "±") if measure.kind != "depth" else text.replace(" of ", "/")


def has_measure(profile: FitProfile, name: str) -> bool:
    """Returns whether a profile has a finite value of a measure."""
    if name == GAIN:
        return len(profile.layers) > 0 and math.isfinite(gain_of_unit(profile, -1)[0])
    return math.isfinite(profile.scalars.get(name, math.nan))


def _available_measures(profiles: Iterable[FitProfile], columns: Iterable[Measure]) -> list[Measure]:
    listed = list(profiles)
    return [measure for measure in columns if any(has_measure(profile, measure.name) for profile in listed)]
