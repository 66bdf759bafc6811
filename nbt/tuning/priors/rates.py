"""Priors on learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nbt.settings import TransferSettings
from nbt.tuning.priors.depth import PLESTED_2021
from nbt.tuning.priors.head import VARNO_2020
from nbt.tuning.priors.measures import SIMILARITY, STATISTICS_SHIFT
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Quantity, near
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.target import Target

# Similarity from which source and target count as similar.
_MIN_SIMILARITY = 0.5
_RATE_SETTINGS = ("momentum", "optimizer", "batch_size")


def _effective_rate(of: str, rate: Callable[[TransferSettings], float | None]) -> Quantity:
    """Returns an effective learning rate as a quantity; it has no effect where `rate` returns None."""

    def value(settings: TransferSettings) -> float | None:
        nominal = rate(settings)
        return None if nominal is None else float(10 ** log_effective_lr(settings, nominal))

    label = f"the effective rate lr / (1 - momentum) of {of} (of SGD with batches of 32 images)"
    return Quantity(label=label, value=value, log=True)


_UNIT_RATE = _effective_rate("the units", lambda settings: settings.body_lr if settings.frozen_depth < 1.0 else None)
_HEAD_RATE = _effective_rate("the head", lambda settings: settings.head_lr)
_RISE = Quantity(
    label="the difference of layer_lr_shape from the input to the top",
    value=lambda settings: settings.layer_lr_shape[2] - settings.layer_lr_shape[0],
)


@prior(
    source="recorded runs of nbt: 0.1 is the median of the best tenth of the settings on three of five tasks",
    dimensions=("body_lr", *_RATE_SETTINGS),
    strength=0.6,
)
def moderate_unit_rate(target: Target) -> PriorSuggestion | None:
    """Trains the units at the effective rate of the default recipe, or within a factor of five of it."""
    return PriorSuggestion((near(_UNIT_RATE, 0.1, 0.7),), "much lower rates hardly train, and much higher ones diverge")


@prior(
    source="Li et al. 2020, arXiv 2002.11770: the best effective rate is lower the more similar source and target are",
    dimensions=("body_lr", *_RATE_SETTINGS),
    needs=(SIMILARITY,),
    strength=0.15,
)
def low_unit_rate_when_similar(target: Target) -> PriorSuggestion | None:
    """Trains the units at a lower effective rate if source and target are similar.

    Recorded runs of nbt neither confirm nor refute it: the similarity of two recorded tasks is known.
    """
    similarity = target.scalars["similarity"]
    if similarity < _MIN_SIMILARITY:
        return None
    return PriorSuggestion((near(_UNIT_RATE, 0.03, 0.7),), f"source and target are similar ({similarity:.2f} of 1)")


@prior(
    source=f"{PLESTED_2021}: learning rates by layer group; {VARNO_2020}: a random head harms features",
    dimensions=("head_lr", *_RATE_SETTINGS),
    strength=0.3,
)
def moderate_head_rate(target: Target) -> PriorSuggestion | None:
    """Trains the head at a higher rate than the units, because it is random, but not at a much higher one.

    A much higher rate propagates large gradients that harm the features while the head is still poor.
    """
    return PriorSuggestion(
        (near(_HEAD_RATE, 0.2, 0.8),), "a random head needs a higher rate than the units, but a poor head harms them"
    )


@prior(
    source=f"nbt, based on {PLESTED_2021}: units whose statistics shift most on the target need most training",
    dimensions=("layer_lr_shape",),
    needs=(STATISTICS_SHIFT,),
    strength=0.15,
)
def rates_by_shift(target: Target) -> PriorSuggestion | None:
    """Trains the end of the network faster whose BatchNorm statistics shift more on the target."""
    shift = target.layer("mean_shift")
    if len(shift) < 3:
        return None
    third = max(1, len(shift) // 3)
    bottom, top = float(np.mean(shift[:third])), float(np.mean(shift[-third:]))
    rise = float(np.clip(math.log10(max(top, 1e-3) / max(bottom, 1e-3)), -1.0, 1.0))
    if abs(rise) < 0.1:
        return None
    end = "top" if rise > 0 else "input"
    return PriorSuggestion((near(_RISE, rise, 0.8),), f"the statistics at the {end} shift most")
