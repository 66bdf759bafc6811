"""The finalists: the recipes that the final runs compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe, is_from_scratch
from nbt.tuning.finals.plan import MAX_FINALISTS, MIN_FOLDS
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.surrogate.observation import condition_on_trials, limit_observations, to_observation
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target

_WITHIN_NOISE = 2.0
MIN_MODELLED_TRIALS = 4
"""Least number of full-length trials that the surrogate ranks; fewer are ranked by their values."""


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


def choose_finalists(
    record: StudyRecord, n_finalists: int = MAX_FINALISTS, surrogate: PriorSurrogate | None = None
) -> list[Finalist]:
    """Returns the best distinct recipes of full-length trials, and the default recipe.

    Diverged trials are excluded. The best training from scratch within noise of the best trial is among several
    challengers, so that the recommendation may be not to transfer.

    Args:
        record: The record of the study.
        n_finalists: Number of finalists, the default recipe included.
        surrogate: Model of the search, see `rank_by_posterior_mean`; None ranks the trials by their values.
    """
    default = default_recipe(record.config.epochs)
    ranked = [trial for trial in record.ranked() if not trial.diverged]
    numbers = {trial.settings: trial.number for trial in reversed(ranked)}  # the best trial of each recipe
    if surrogate is not None and len(ranked) >= MIN_MODELLED_TRIALS:
        ranked = rank_by_posterior_mean(ranked, record, surrogate)
    challengers = list(dict.fromkeys(trial.settings for trial in ranked if trial.settings != default))
    challengers = _with_training_from_scratch(challengers, record, n_finalists - 1)
    return [
        Finalist(
            name=DEFAULT_RECIPE if settings == default else f"trial {numbers[settings]}",
            trial=numbers.get(settings),
            settings=settings,
        )
        for settings in [*challengers, default]
    ]


def stored_finalists(
    record: StudyRecord, attributes: Mapping[str, object], folds: int, chosen: Sequence[Finalist]
) -> list[Finalist]:
    """Returns the recipes that are not chosen now, but were finalists or have run on the first folds.

    They stay finalists when the budget or the number of folds has changed, because their runs are better evidence than
    a trial and cost nothing.

    Args:
        record: The record of the study.
        attributes: Its attributes, which contain the stored runs.
        folds: Maximum number of folds; the first `MIN_FOLDS` of them count.
        chosen: The finalists that are chosen anyway.
    """
    seed, known = record.config.seed, {finalist.settings for finalist in chosen}
    # The runs of version 0.1, without folds, cannot be compared with new ones.
    earlier = {final.settings for final in record.finals if any(run.fold is not None for run in final.runs)}
    found: dict[TransferSettings, Finalist] = {}
    for trial in record.ranked():
        settings = trial.settings
        needed = (codec.final_key(settings, seed + i, i) for i in range(1, min(MIN_FOLDS, folds) + 1))
        is_new = settings not in known and settings not in found and not trial.diverged
        if is_new and (settings in earlier or all(key in attributes for key in needed)):
            found[settings] = Finalist(name=f"trial {trial.number}", trial=trial.number, settings=settings)
    return list(found.values())


def _with_training_from_scratch(
    challengers: Sequence[TransferSettings], record: StudyRecord, count: int
) -> list[TransferSettings]:
    """Returns so many challengers, the best first, and a training from scratch in the last place if it may be as good.

    A difference of single trials is within noise below two standard errors. A single challenger is not replaced.
    """
    chosen = list(challengers[:count])
    scores = [(t.score(record.config.metric) or 0.0, t.settings) for t in record.ranked() if not t.diverged]
    scratch = next(((score, found) for score, found in scores if is_from_scratch(found)), None)
    if count < 2 or scratch is None or record.noise is None or any(map(is_from_scratch, chosen)):
        return chosen
    is_close = scores[0][0] - scratch[0] <= _WITHIN_NOISE * math.sqrt(2.0) * record.noise
    if not is_close or record.config.with_backbone_of(scratch[1]).weights == "none":
        return chosen
    return [*chosen[: count - 1], scratch[1]]


def rank_by_posterior_mean(
    trials: Sequence[TrialRecord], record: StudyRecord, surrogate: PriorSurrogate
) -> list[TrialRecord]:
    """Returns full-length trials by the posterior mean of the surrogate given all trials of the study, best first.

    The mean of the best trial is closer to the other trials than its value, in which luck is included.

    Args:
        trials: The trials to rank, which the study contains.
        record: The record of the study.
        surrogate: Model of the search.
    """
    facts, metric = record.dataset, record.config.metric
    images = Target(epochs=record.config.epochs, facts=facts, metric=metric).validation_images
    found = [to_observation(trial, images, metric) for trial in record.trials]
    observations = [o for o in found if o is not None and o.logit_score is not None]
    means = condition_on_trials(surrogate, limit_observations(observations)).mean([t.settings for t in trials])
    return [trials[i] for i in sorted(range(len(trials)), key=lambda i: -float(means[i]))]
