"""Priors on augmentation, batch size and the average of the weights, which depend on the length of the training."""

from __future__ import annotations

from nbt.settings import TransferSettings
from nbt.tuning.priors.measures import TRAINING_IMAGES
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Choice, Quantity, at_least, at_most, setting
from nbt.tuning.target import Target

_AUGMENTATION = setting("augmentation")
_BATCH_SIZE = setting("batch_size", log=True)
_EPOCHS = setting("epochs", log=True)
_MIXUP = Quantity(label="mixup", value=lambda settings: settings.mixup if settings.frozen_depth < 1.0 else None)


@prior(
    source="recorded runs of nbt: strong augmentation does not improve accuracy within a dozen epochs",
    dimensions=("augmentation", "mixup"),
    strength=0.4,
)
def mild_augmentation_when_short(target: Target) -> PriorSuggestion | None:
    """Augments mildly if there is little time."""
    if target.epochs > 30:
        return None
    mild = Choice(quantity=_AUGMENTATION, preferred={"crop": 0.0, "none": 0.7}, other=1.5)
    return PriorSuggestion((mild, at_most(_MIXUP, 0.1, 0.3)), f"{target.epochs} epochs leave little time")


@prior(
    source="arithmetic: the horizon of an exponential average is 1 / (1 - decay) steps",
    dimensions=("ema", "batch_size"),
    needs=(TRAINING_IMAGES,),
    strength=0.3,
)
def average_within_the_training(target: Target) -> PriorSuggestion | None:
    """Averages the weights over the end of the training only, after the learning rate has decayed."""
    steps_of_one = target.epochs * (target.train_images or 0.0)

    def horizon(settings: TransferSettings) -> float:
        return settings.batch_size / (1.0 - settings.ema) / steps_of_one if settings.ema else 0.0

    share = Quantity(
        label="the horizon of the average of the weights, as a share of the steps,", value=horizon, log=True
    )
    return PriorSuggestion(
        (at_most(share, 0.1, 0.7),), "a longer average includes weights from before the learning rate decayed"
    )


@prior(
    source="Masters, Luschi 2018, arXiv 1804.07612: small batches are robust; small datasets have few steps",
    dimensions=("batch_size",),
    needs=(TRAINING_IMAGES,),
    strength=0.15,
)
def enough_steps(target: Target) -> PriorSuggestion | None:
    """Trains with small batches if there are few steps."""
    steps = target.epochs * (target.train_images or 0.0) / 32
    if steps > 2000:
        return None
    return PriorSuggestion((at_most(_BATCH_SIZE, 32, 0.3),), f"batches of 32 images give only {steps:.0f} steps")


@prior(
    source="nbt: an assumption, with a low weight; longer schedules are seldom worse, and proposals weigh their cost",
    dimensions=("epochs",),
    strength=0.3,
)
def at_least_the_usual_length(target: Target) -> PriorSuggestion | None:
    """Trains for the length of a baseline trial or longer; the trials decide how much longer pays."""
    return PriorSuggestion(
        (at_least(_EPOCHS, target.epochs, 0.3),), "a shorter schedule ends before the units have adapted"
    )
