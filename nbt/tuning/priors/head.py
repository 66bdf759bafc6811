"""Priors on the start of the head (FAST)."""

from __future__ import annotations

import numpy as np

from nbt.tuning.priors.measures import ADVANTAGE
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Either, at_least, at_most, setting
from nbt.tuning.target import Target

VARNO_2020 = "Varno et al. 2020, arXiv 2007.01388"

_HEAD_SCALE, _STALL = setting("head_scale", low=0.0), setting("stall", low=0.0)
# Below this advantage, harming the features costs little.
_MIN_ADVANTAGE = 0.2
_STALL_SHARE = 0.1


@prior(
    source=f"{VARNO_2020}: the first errors of a random head harm good features",
    dimensions=("stall", "head_scale"),
    needs=(ADVANTAGE,),
    strength=0.2,
)
def stall_while_the_head_is_random(target: Target) -> PriorSuggestion | None:
    """Protects good features by a small head or a stall; both together do not protect them better."""
    advantage = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    if advantage < _MIN_ADVANTAGE:
        return None
    small_head = at_most(_HEAD_SCALE, 0.001, 0.7, advantage)
    return PriorSuggestion(
        (Either(small_head, at_least(_STALL, _STALL_SHARE, 0.07, advantage)), at_most(_STALL, _STALL_SHARE, 0.15)),
        f"the features are good: the probe makes {100 * advantage:.0f} % fewer errors than with random weights",
    )
