"""Recommended settings: the best settings under the prior surrogate, before any trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.samplers.candidates import best_recorded_params
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.sampling import mutate, neutral_params, sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate

_NUM_RANDOM, _NUM_LOCAL, _NUM_ROUNDS = 1000, 200, 4
# Prior mean that neutral values may cost in total: at most half a point of accuracy, less than a final can tell apart.
_NEGLIGIBLE_LOSS = 0.05


def recommend_settings(surrogate: PriorSurrogate, space: Space) -> TransferSettings:
    """Returns the settings with the greatest prior mean, other than the baseline recipes.

    Dimensions that neither an active prior nor a recorded task judges have their neutral values, as have dimensions
    that are judged, but for which the neutral value is as good. A local search improves the best of random settings and
    of recorded settings in a few rounds, and the result is rounded to three significant digits. It is deterministic.

    Args:
        surrogate: Prior surrogate of the search.
        space: Search space.
    """
    rng = np.random.default_rng(derive_seed(0, "recommendation"))
    length = surrogate.target.epochs
    judged = space.without(surrogate.unjudged)
    candidates = [
        *(sample_params(judged, rng) for _ in range(_NUM_RANDOM)),
        *best_recorded_params(surrogate, judged),
    ]
    baselines = [settings for _, settings in baseline_recipes(length)]
    for _ in range(_NUM_ROUNDS):
        settings = [judged.settings(candidate, length) for candidate in candidates]
        start = candidates[settings.index(surrogate.recommend(settings, without=baselines))]
        candidates = [
            start,
            *(mutate(judged, start, sample_params(judged, rng), rng) for _ in range(_NUM_LOCAL)),
        ]
    simple = _with_neutral_values(surrogate, judged, start, baselines)
    return judged.settings(_round_params(judged, simple), length)


def _with_neutral_values(
    surrogate: PriorSurrogate,
    space: Space,
    params: Mapping[str, ParamValue],
    baselines: Sequence[TransferSettings],
) -> Mapping[str, ParamValue]:
    """Returns the parameters with as many dimensions at their neutral values as cost `_NEGLIGIBLE_LOSS` in total.

    Dimensions are reset one by one, that with the greatest remaining prior mean first.
    """
    length = surrogate.target.epochs
    remaining = list(space.dimensions)
    lowest = float(surrogate.prior_mean([space.settings(params, length)])[0]) - _NEGLIGIBLE_LOSS
    while remaining:
        resets = [{**params, **neutral_params([dimension])} for dimension in remaining]
        settings = [space.settings(reset, length) for reset in resets]
        means = surrogate.prior_mean(settings)
        means[[recipe in baselines for recipe in settings]] = -np.inf
        best = int(np.argmax(means))
        if means[best] < lowest:
            break
        params = resets[best]
        del remaining[best]
    return params


def _round_params(space: Space, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """Returns the parameters rounded to three significant digits; the model is not more precise than that."""
    rounded: dict[str, ParamValue] = {}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            value = params[name]
            if isinstance(value, float) and dimension.kind == "float":
                low, high = dimension.bounds()
                value = min(max(float(f"{value:.3g}"), low), high)
            rounded[name] = value
    return rounded
