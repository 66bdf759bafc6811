"""Candidates of a proposal: mutations of settings, and the best recorded settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from nbt.tuning.space.dimension import Dimension, ParamValue
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate


def best_recorded_params(surrogate: PriorSurrogate, space: Space) -> list[dict[str, ParamValue]]:
    """Returns the parameters of the best settings of each recorded task that the space contains."""
    best = [recipe.replace(epochs=surrogate.target.epochs) for model in surrogate.experience for recipe in model.best]
    return [space.params(recipe) for recipe in best if space.can_express(recipe)]


def neutral_params(dimensions: Iterable[Dimension]) -> dict[str, ParamValue]:
    """Returns the parameters of dimensions at their neutral values."""
    return {name: dimension.neutral for dimension in dimensions for name in dimension.parameters}


def mutate(
    space: Space, params: Mapping[str, ParamValue], fresh: Mapping[str, ParamValue], rng: np.random.Generator
) -> dict[str, ParamValue]:
    """Returns a mutation of `params`: one to four parameters are taken from `fresh` or moved towards it."""
    mutated: dict[str, ParamValue] = dict(params)
    count = 1 + int(rng.integers(4))
    total = len(space.parameters)
    names = {space.parameters[i] for i in rng.choice(total, size=min(count, total), replace=False)}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            if name in names:
                moves = dimension.kind == "float" and rng.random() < 0.7
                mutated[name] = dimension.interpolate(params[name], fresh[name], 0.25) if moves else fresh[name]
    return mutated
