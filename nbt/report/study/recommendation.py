"""Current recommendation of a study, finished or not."""

from __future__ import annotations

from dataclasses import dataclass

from nbt.search_config import SearchConfig
from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.storage.records import FinalRecord, StudyConfig, StudyRecord, TrialRecord


@dataclass(frozen=True, kw_only=True)
class StudyRecommendation:
    """The recommended settings.

    Attributes:
        name: "trial 12" or "default recipe".
        settings: The recommended settings.
        trial: The trial that ran them first; None if no trial did.
        final: Their final runs; None before the finals, when the recommendation rests on one run.
        is_default: Whether they are the default recipe.
    """

    name: str
    settings: TransferSettings
    trial: TrialRecord | None
    final: FinalRecord | None
    is_default: bool


def default_recipe_settings(config: StudyConfig) -> TransferSettings:
    """Returns the default recipe with the study's number of epochs."""
    return default_recipe(config.epochs)


def default_recipe_trial(record: StudyRecord) -> TrialRecord | None:
    """Returns the full-length trial that ran the default recipe, or None."""
    default = default_recipe_settings(record.config)
    return next((t for t in record.trials if t.settings == default and t.state == "complete"), None)


def current_recommendation(record: StudyRecord) -> StudyRecommendation | None:
    """Returns the recommended finalist, before the finals the best full-length trial, or None if there is none."""
    default = default_recipe_settings(record.config)
    final = record.final(record.recommended) if record.recommended is not None else None
    if final is not None:
        trial = next((t for t in record.trials if t.number == final.trial), None)
        is_default = final.settings == default
        return StudyRecommendation(
            name=final.name, settings=final.settings, trial=trial, final=final, is_default=is_default
        )
    best = next((t for t in record.ranked() if not t.diverged), None)
    if best is None:
        return None
    is_default = best.settings == default
    name = DEFAULT_RECIPE if is_default else f"trial {best.number}"
    return StudyRecommendation(name=name, settings=best.settings, trial=best, final=None, is_default=is_default)


def recommended_task_options(record: StudyRecord) -> SearchConfig:
    """Returns the options of a study, with the backbone of its recommendation alone if it has several."""
    search, recommendation = record.search_config(), current_recommendation(record)
    if not record.config.candidates or recommendation is None:
        return search
    chosen = record.config.with_backbone_of(recommendation.settings)
    return search.replace(
        backbones=None, backbone=chosen.backbone, weights=chosen.weights, image_size=chosen.image_size
    )
