"""Candidates of a proposal from experience: the best recorded settings."""

from __future__ import annotations

from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate


def best_recorded_params(surrogate: PriorSurrogate, space: Space) -> list[dict[str, ParamValue]]:
    """Returns the parameters of the best settings of each recorded task that the space contains."""
    if surrogate.experience is None:
        return []
    best = dict.fromkeys(recipe.replace(epochs=surrogate.target.epochs) for recipe in surrogate.experience.best)
    return [space.params(recipe) for recipe in best if space.can_express(recipe)]
