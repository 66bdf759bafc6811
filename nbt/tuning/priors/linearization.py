"""Prior on linearised fine-tuning."""

from __future__ import annotations

import math

import numpy as np

from nbt.settings import TransferSettings
from nbt.tuning.priors.measures import IMAGES_PER_CLASS
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Choice, Quantity, setting
from nbt.tuning.target import Target

_LINEARIZED = setting("linearized")


def _loss_and_model(settings: TransferSettings) -> str:
    loss = "squared error" if settings.target_scale > 0.0 else "cross-entropy"
    return f"{loss} of the {'expansion' if settings.linearized else 'network'}"


_LOSS = Quantity(label="the loss", value=_loss_and_model)


@prior(
    source="Achille et al. 2021, arXiv 2012.11140 (LQF): linearised networks come close with few images",
    dimensions=("linearized", "target_scale"),
    needs=(IMAGES_PER_CLASS,),
    strength=0.4,
)
def the_expansion_when_images_are_few(target: Target) -> PriorSuggestion | None:
    """Trains the network; with few images its expansion is as accurate (LQF), but always slower."""
    images_per_class = target.images_per_class or 1.0
    loss = float(np.clip(0.5 + math.log2(images_per_class / 5.0) / 4.0, 0.2, 1.5))
    matching = {"cross-entropy of the network": 0.0, "squared error of the expansion": 0.0}
    return PriorSuggestion(
        (
            Choice(quantity=_LINEARIZED, preferred={False: 0.0}, other=loss),
            Choice(quantity=_LOSS, preferred=matching, other=0.5),
        ),
        f"with {images_per_class:.0f} images per class the first-order expansion is no better, and it is slower",
    )
