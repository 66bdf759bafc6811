"""Searches with weights that do not help: they train from scratch, as long as transfer is not clearly better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nbt.tuning.baseline_recipes import from_scratch_recipe, is_from_scratch
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.surrogate.observation import Observation
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate

_TRANSFER_DEPTH = "transfer_depth"
# Where these vary, trials may start from other weights than those of the fit profile.
_OTHER_STARTS = {"init", "pretrain_scheme"}
_CLEAR = 2.0  # standard errors


def tries_from_scratch(surrogate: PriorSurrogate) -> bool:
    """Returns whether training the reference from scratch is one of the first trials of a search.

    It is where the weights of the reference have no clear advantage over random ones, and where the probe cannot tell,
    because the reference was not measured or has random weights, but those of no other backbone have a clear one.

    Args:
        surrogate: Model of the search.
    """
    reference, *others = (target.has_clear_advantage for target in surrogate.targets.values())
    if reference is not None:
        return not reference
    return False in others and True not in others


def starts_without_transfer(surrogate: PriorSurrogate) -> bool:
    """Returns whether a search begins with trainings from scratch, because the weights have no advantage.

    Of several backbones, none may have one: where the weights of one of them may help, were not measured or are random,
    what is expected of each backbone decides, and its trials. A search with injections or several pretraining schemes
    has other weights, too. A user who has a belief about the transfer depth is followed.

    Args:
        surrogate: Model of the search.
    """
    target, space, targets = surrogate.target, surrogate.space, surrogate.targets
    return (
        all(each.has_no_advantage for each in targets.values())
        and not (space.has_backbones and len(targets) == 1)  # what was known of the others was lost
        and not any(dimension.name in _OTHER_STARTS for dimension in space.dimensions)
        and not any(_TRANSFER_DEPTH in belief.dimensions for belief in surrogate.beliefs)
        and space.can_express(from_scratch_recipe(target.epochs))
    )


def without_transfer(candidates: Sequence[Mapping[str, ParamValue]]) -> list[dict[str, ParamValue]]:
    """Returns candidates that transfer nothing and are equal otherwise."""
    return [{**params, _TRANSFER_DEPTH: 0.0} for params in candidates]


def is_transfer_better(observations: Sequence[Observation]) -> bool:
    """Returns whether the best transfer is clearly above the best training from scratch; False while one is missing.

    Args:
        observations: Finished trials; those without a score do not count.
    """
    best: dict[bool, tuple[float, float]] = {}  # whether it is from scratch -> score and variance
    for trial in observations:
        if trial.logit_score is None:
            continue
        key = is_from_scratch(trial.settings)
        best[key] = max(best.get(key, (-math.inf, 0.0)), (trial.logit_score, trial.variance))
    if len(best) < 2:
        return False
    (scratch, scratch_variance), (transfer, transfer_variance) = best[True], best[False]
    return transfer - scratch > _CLEAR * math.sqrt(scratch_variance + transfer_variance)
