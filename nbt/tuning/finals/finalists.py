"""The finalists: the recipes that the final runs compare."""

from __future__ import annotations

from dataclasses import dataclass

from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.storage.records import StudyRecord

N_FINALISTS = 3


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A recipe that runs in the finals.

    Attributes:
        name: "trial 12" or "default recipe".
        trial: Number of the trial with these settings; None if no trial ran the default recipe.
        settings: The recipe.
    """

    name: str
    trial: int | None
    settings: TransferSettings


def choose_finalists(record: StudyRecord, n_finalists: int = N_FINALISTS) -> list[Finalist]:
    """Returns the best `n_finalists` distinct full-length trials, and the default recipe if it is not among them.

    Diverged trials are excluded.

    Args:
        record: The record of the study.
        n_finalists: Number of trials.
    """
    default = default_recipe(record.config.epochs)
    ranked = [trial for trial in record.ranked() if not trial.diverged]
    chosen: list[Finalist] = []
    for trial in ranked:
        if len(chosen) < n_finalists and trial.settings not in [finalist.settings for finalist in chosen]:
            name = DEFAULT_RECIPE if trial.settings == default else f"trial {trial.number}"
            chosen.append(Finalist(name=name, trial=trial.number, settings=trial.settings))
    if default not in [finalist.settings for finalist in chosen]:
        number = next((trial.number for trial in ranked if trial.settings == default), None)
        chosen.append(Finalist(name=DEFAULT_RECIPE, trial=number, settings=default))
    return chosen
