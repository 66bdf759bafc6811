"""StudyRecommendation: what a study recommends at this moment, however far it got."""

from __future__ import annotations

from dataclasses import dataclass

from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.storage.records import FinalRecord, StudyConfig, StudyRecord, TrialRecord


@dataclass(frozen=True, kw_only=True)
class StudyRecommendation:
    """What is recommended.

    Attributes:
        name: "trial 12" or "default recipe".
        settings: Its recipe.
        trial: The trial it came from, None where none ran it.
        final: Its final runs; None before the finals, when the choice rests on one run.
        is_default: It is the default recipe.
    """

    name: str
    settings: TransferSettings
    trial: TrialRecord | None
    final: FinalRecord | None
    is_default: bool


def default_pretrain_settings(config: StudyConfig) -> TransferSettings:
    """Returns the default recipe at the study's length."""
    return default_recipe(config.epochs)


def default_recipe_trial(record: StudyRecord) -> TrialRecord | None:
    """Returns the full-length trial that ran the default recipe, if one did."""
    default = default_pretrain_settings(record.config)
    return next((t for t in record.trials if t.settings == default and t.state == "complete"), None)


def current_recommendation(record: StudyRecord) -> StudyRecommendation | None:
    """Returns the recommended finalist; before the finals the best full-length trial; None where there is none."""
    default = default_pretrain_settings(record.config)
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
