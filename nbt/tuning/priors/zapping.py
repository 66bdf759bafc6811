"""Priors on zapping."""

from __future__ import annotations

from nbt.settings import TransferSettings
from nbt.tuning.priors.measures import IMAGES_PER_CLASS
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Quantity, at_most, near
from nbt.tuning.target import Target


@prior(
    source="nbt, based on Frati et al. 2023, arXiv 2310.07996, who zap during long pretraining",
    dimensions=("zap_period", "zap_fraction"),
    needs=(IMAGES_PER_CLASS,),
    strength=0.3,
)
def zap_rarely_when_training_is_short(target: Target) -> PriorSuggestion | None:
    """Zaps only if the head has the time to recover."""
    # Epochs that a reset head needs to recover: with fewer images per class there are fewer steps per epoch.
    recovery = max(2.0, 100.0 / (target.images_per_class or 1.0))
    if target.epochs > 10 * recovery:
        return None

    def recovering_share(settings: TransferSettings) -> float:
        zaps = (settings.epochs - 1) // settings.zap_period if settings.zap_period else 0
        return settings.zap_fraction * zaps * recovery / target.epochs

    share = Quantity(label="the share of the epochs in which the head recovers from zaps", value=recovering_share)
    return PriorSuggestion(
        (at_most(share, 0.1, 1.0),),
        f"a reset head needs about {recovery:.0f} epochs to recover, a trial has {target.epochs}",
    )


@prior(
    source="runs of nbt on digits: with a falling rate, a head that is reset in the last third does not recover",
    dimensions=("zap_until",),
    needs=(),
    strength=0.3,
)
def stop_zapping_early(target: Target) -> PriorSuggestion:
    """Stops zapping while the learning rate is high enough to train the head again."""
    share = Quantity(label="zap_until", value=lambda settings: settings.zap_until if settings.zap_period else None)
    return PriorSuggestion(
        (near(share, 0.62, 0.12),), "while the learning rate falls to 0, a reset head does not recover"
    )
