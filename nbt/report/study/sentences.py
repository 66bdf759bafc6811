"""Sentences of a study's report below the headline: recipe, selection, and important settings."""

from __future__ import annotations

import math
from collections.abc import Collection

from nbt.metrics import METRICS, Metric
from nbt.models.teacher import teacher_without_folder
from nbt.report.fit.correlation import unit_count
from nbt.report.formatting import difference_number, percent, score_text
from nbt.report.study.headline import error_text
from nbt.report.study.recommendation import StudyRecommendation
from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.finals.plan import MAX_FINALS_SHARE, MIN_FINALISTS
from nbt.tuning.job_clock import finals_share
from nbt.tuning.storage.records import StudyRecord, TrialRecord

_EQUAL_RATES = 0.95
"""Smallest ratio of the lowest to the highest learning rate of the units that is not worth a clause."""


def recipe_sentence(settings: TransferSettings, units: int | None, *, pretrained: bool = True) -> str:
    """Returns a description of the recipe that does not require the names of the settings.

    Args:
        settings: The recipe.
        units: Number of units of the backbone; None if it is unknown, when depths are given as shares of the units.
        pretrained: Whether the backbone has pretrained weights, rather than `--weights none`.
    """
    injects = settings.source.init == "inject"
    start = _transfer_text(settings, units) if pretrained or injects else "starts from random weights"
    parts = [start, _frozen_text(settings, units)]
    if settings.sp_mix > 0:
        weights = "pretrained" if pretrained and not injects else "initial"
        parts.append(f"uses {percent(settings.sp_mix, 0)} of the weight decay towards the {weights} weights (L2-SP)")
    slowest, fastest = min(settings.layer_lr_shape), max(settings.layer_lr_shape)
    if 10 ** (slowest - fastest) < _EQUAL_RATES and settings.frozen_depth < 1.0:
        where = ("input", "middle", "top")[settings.layer_lr_shape.index(slowest)]
        factor = 10 ** (fastest - slowest)
        parts.append(
            f"has its lowest learning rate at the {where} of the backbone, {factor:.2g} times below the highest"
        )
    return f"It {', '.join(parts[:-1])} and {parts[-1]}."


def _transfer_text(settings: TransferSettings, units: int | None) -> str:
    share = _depth(settings, "transfer_depth", units)
    if share <= 0.0:
        return "starts from random weights"
    if settings.source.init == "inject":
        where = "" if share >= 1.0 else f" in {_first_units(share, units)}"
        return f"starts from injected weights of {teacher_without_folder(settings.source.teacher)} (TLI){where}"
    if share >= 1.0:
        return "keeps all pretrained weights"
    return f"keeps the pretrained weights of {_first_units(share, units)}"


def _frozen_text(settings: TransferSettings, units: int | None) -> str:
    share = _depth(settings, "frozen_depth", units)
    if share >= 1.0:
        return "trains only the head"
    frozen = [_first_units(share, units)] if share > 0.0 else []
    if settings.frozen_top:
        frozen.append(f"the {percent(settings.frozen_top, 0)} of the units nearest to the head")
    return f"freezes {' and '.join(frozen) or 'no units'}"


def _depth(settings: TransferSettings, depth: str, units: int | None) -> float:
    """Returns a depth as a share of the units, as training rounds it if their number is known."""
    if units is None:
        return float(getattr(settings, depth))
    return unit_count(settings, depth, units) / units


def _first_units(share: float, units: int | None) -> str:
    if units is None:
        return f"the first {percent(share, 0)} of the units"
    return f"the first {round(share * units)} of {units} units"


def optimism(record: StudyRecord, recommendation: StudyRecommendation | None) -> str:
    """Returns the comparison of the trial's accuracy in the search with its final mean, or "" if one is missing.

    The maximum over many trials is biased upwards; the difference shows by how much on one validation split.
    """
    if recommendation is None or recommendation.final is None or recommendation.trial is None:
        return ""
    metric = METRICS[record.config.metric]
    in_search, in_finals = recommendation.trial.score(metric.name), recommendation.final.validation.mean
    full = record.counts()["complete"]
    if in_search is None or full < 2:
        return ""
    new = f"new seeds {_where_validated(record)}"
    name = f"the {recommendation.name}" if recommendation.is_default else recommendation.name
    return (
        f"In the search, {name} reached {score_text(in_search, metric)} on a single split, "
        f"selected among {full} full-length trials; over {new} its mean is {score_text(in_finals, metric)} "
        f"({difference_number(in_finals - in_search, metric, in_search)} {metric.difference_unit})."
    )


def finals_sentence(record: StudyRecord) -> str:
    """Returns how the final runs differ from the trials, what their intervals include, and what they cost."""
    part = "the overlap of the training sets (Nadeau and Bengio 2003)"
    if record.has_fixed_validation:
        part = "which more seeds do not reduce"
    text = (
        f"The most promising trials and the default recipe were repeated with new seeds {_where_validated(record)}, "
        "the same for all candidates, so that differences are paired. The intervals include the draw of the "
        f"validation images, {part}, and the variation between runs; those of the differences are corrected for the "
        "number of candidates and of looks at them (Bonferroni)."
    )
    share = finals_share(record.clock)
    if not 0.0 < share < math.inf:
        return text
    text = f"{text} With the last training, they took {percent(share, 0)} of the time of the trials"
    if share <= MAX_FINALS_SHARE:
        return f"{text}."
    return f"{text}; a comparison with the default recipe needs {MIN_FINALISTS} recipes on several folds in any case."


def left_out_sentence(best: TrialRecord | None, finalists: Collection[str], metric: Metric) -> str:
    """Returns why the best trial is not a finalist; "" if it is one, or if there is none.

    Args:
        best: The full-length trial with the best value.
        finalists: Names of the finalists, see `nbt.tuning.finals.finalists.Finalist`.
        metric: The metric of the study.
    """
    if best is None or best.diverged or f"trial {best.number}" in finalists:
        return ""
    if best.settings == default_recipe(best.settings.epochs) and DEFAULT_RECIPE in finalists:
        return ""
    return (
        f"Trial {best.number} has the best value of a single run, {score_text(best.score(metric.name), metric)}, but "
        "is not a finalist: given all trials, the surrogate model expects more of another one."
    )


def failed_finals_sentence(record: StudyRecord) -> str:
    """Returns which finalists have no successful run, and why; "" if all have one."""
    return " ".join(f"{name[:1].upper()}{name[1:]} is not listed: {why}." for name, why in record.failed_finals.items())


def _where_validated(record: StudyRecord) -> str:
    if record.has_fixed_validation:
        return "on the same official validation images"
    in_folds = any(run.fold is not None for final in record.finals for run in final.runs)
    return "on folds of the training and validation images" if in_folds else "and splits"


def ranking_sentence(record: StudyRecord) -> str:
    """Returns the explanation of the order of the trials."""
    metric, best = METRICS[record.config.metric], next(iter(record.ranked()), None)
    if record.noise is None or best is None:
        return f"Full-length trials come first, by validation {metric.label}."
    error = error_text(record.noise, metric, best.score(metric.name) or 0.0)
    return f"Full-length trials come first, by validation {metric.label}, whose standard error at the best is {error}."


def importance_sentence(record: StudyRecord) -> str:
    """Returns the basis of the importances, or the reason why there are none."""
    full = record.counts()["complete"]
    if not record.importance:
        return f"The full-length trials ({full} so far) are too few or too similar to estimate importances."
    hint = " With so few trials, this is a hint, not a finding." if full < 20 else ""
    if record.load_importance_bounds():
        from nbt.tuning.importance import RESAMPLES  # imports optuna

        hint = (
            f" The intervals are quantiles over {RESAMPLES} bootstrap resamples of these trials: where they overlap, "
            f"the order of the settings is not established.{hint}"
        )
    return (
        f"Contribution of each setting to what distinguishes the best of the {full} full-length trials from the others "
        f"(PED-ANOVA); pruned and failed trials are left out.{hint}"
    )
