"""Priors from the fit profile: densities over one or a few settings, each with a name and a source.

Before any trial, one standard deviation of a prior's log density over random settings counts as `strength` units of the
logit score (`nbt.tuning.surrogate.logit_score`). `nbt.tuning.surrogate.prior_surrogate` updates that weight with the
trials of the study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nbt.settings import TransferSettings
from nbt.tuning.priors.prior import Prior, PriorSuggestion, gaussian_log_density
from nbt.tuning.priors.technique_priors import TECHNIQUE_PRIORS, VARNO_2020
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.target import Target


@dataclass(frozen=True, kw_only=True)
class PriorActivation:
    """The result of applying a prior to a target.

    Attributes:
        prior: The prior.
        suggestion: Its suggestion, or None if it is not active.
        reason: Reason for which it is not active, "" if it is.
    """

    prior: Prior
    suggestion: PriorSuggestion | None
    reason: str = ""


_MEASURES: dict[str, Callable[[Target], object]] = {
    "images per class": lambda target: target.images_per_class,
    "training images": lambda target: target.train_images,
    "probe accuracy": lambda target: target.probe,
    "advantage over random weights": lambda target: target.advantage,
    "knee of the gain": lambda target: target.scalars.get("knee_depth"),
    "TLI similarity": lambda target: target.tli_similarity,
    "statistics shift by unit": lambda target: target.layer("mean_shift") or None,
}


def activate_priors(target: Target, varied: Sequence[str]) -> list[PriorActivation]:
    """Applies every prior that concerns a varied setting.

    Args:
        target: Target with the facts and the profile of the task.
        varied: Names of the settings that the space varies.

    Returns:
        One activation per prior, in the order of `PRIORS`.
    """
    priors = (*PRIORS, *_registered_priors)
    return [_activate(prior, target) for prior in priors if set(prior.dimensions) & set(varied)]


_registered_priors: list[Prior] = []


def register_prior(prior: Prior) -> None:
    """Adds a prior, for example of a technique that is registered at run time, after all others."""
    _registered_priors.append(prior)


def unregister_prior(prior: Prior) -> None:
    """Removes a registered prior."""
    _registered_priors.remove(prior)


def _activate(prior: Prior, target: Target) -> PriorActivation:
    missing = [measure for measure in prior.needs if _MEASURES[measure](target) is None]
    if missing:
        return PriorActivation(prior=prior, suggestion=None, reason=f"not measured: {', '.join(missing)}")
    suggestion = prior.suggest(target)
    reason = "" if suggestion is not None else "the profile gives no reason for it"
    return PriorActivation(prior=prior, suggestion=suggestion, reason=reason)


# A smaller gain is within the error of a probe on a few hundred images.
_MIN_GAIN = 0.03


def _transfer_up_to_knee(target: Target) -> PriorSuggestion | None:
    gain, knee = target.layer("gain"), target.scalars["knee_depth"]
    if not gain or max(gain) < _MIN_GAIN or knee <= 0.0:
        return None
    gain_persists = gain[-1] >= 0.9 * max(gain)

    def log_density(settings: TransferSettings) -> float:
        below = gaussian_log_density(min(settings.transfer_depth, knee), knee, 0.15)
        # Above the knee the weights add little, but do no harm unless the gain falls again.
        return below if gain_persists else below + gaussian_log_density(max(settings.transfer_depth, knee), knee, 0.3)

    limit = "" if gain_persists else ", not much more"
    return PriorSuggestion(
        f"transfer at least {knee:.0%} of the units, where the gain over random weights levels off{limit}", log_density
    )


def _freeze_when_few_images(target: Target) -> PriorSuggestion | None:
    images_per_class, probe = target.images_per_class or 1.0, target.probe or 0.0
    if (target.advantage or 0.0) <= 0.0:
        return None
    # With 10 images per class most units are frozen, with 1000 almost none. A high probe accuracy needs less training.
    centre = float(np.clip(1.15 - 0.35 * math.log10(max(images_per_class, 1.0)) + 0.2 * (probe - 0.5), 0.0, 0.95))
    return PriorSuggestion(
        f"freeze about {centre:.0%} of the units ({images_per_class:.0f} images per class, probe accuracy {probe:.0%})",
        lambda settings: gaussian_log_density(settings.frozen_depth, centre, 0.3),
    )


def _l2_sp_by_similarity(target: Target) -> PriorSuggestion | None:
    advantage = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    slope = 2.0 * advantage - 1.0

    def log_density(settings: TransferSettings) -> float:
        pulled_share = settings.sp_mix * min(settings.sp_depth, settings.transfer_depth)
        return slope * pulled_share

    words = (
        "pull most units towards the pretrained weights"
        if slope > 0
        else "pull few units towards the pretrained weights, or none"
    )
    return PriorSuggestion(f"{words} (L2-SP; pretraining removes {advantage:.0%} of the probe's error)", log_density)


def _learning_rate_by_similarity(target: Target) -> PriorSuggestion | None:
    advantage = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    centre = -0.7 - advantage

    def log_density(settings: TransferSettings) -> float:
        if settings.frozen_depth >= 1.0:
            return gaussian_log_density(
                0.7, 0.0, 0.7
            )  # no unit trains: the density at a distance of one standard deviation
        return gaussian_log_density(log_effective_lr(settings, settings.body_lr), centre, 0.7)

    return PriorSuggestion(
        f"an effective rate lr / (1 - momentum) of about {10**centre:.2g} for the units", log_density
    )


def _momentum_by_similarity(target: Target) -> PriorSuggestion | None:
    slope = 0.5 - float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    if abs(slope) < 0.05:
        return None
    words = "a high momentum" if slope > 0 else "a low momentum"
    return PriorSuggestion(
        f"{words}, as the target is {'unlike' if slope > 0 else 'like'} the source", lambda s: slope * s.momentum
    )


def _moderate_head_rate(target: Target) -> PriorSuggestion | None:
    # A randomly initialised head needs a higher rate than pretrained units, so more than the default recipe's 0.1. A
    # much higher rate propagates large gradients that harm the features while the head is still poor.
    return PriorSuggestion(
        "an effective head rate lr / (1 - momentum) of about 0.2",
        lambda settings: gaussian_log_density(log_effective_lr(settings, settings.head_lr), math.log10(0.2), 0.8),
    )


def _layer_rates_by_shift(target: Target) -> PriorSuggestion | None:
    shift = target.layer("mean_shift")
    if len(shift) < 3:
        return None
    third = max(1, len(shift) // 3)
    bottom, top = float(np.mean(shift[:third])), float(np.mean(shift[-third:]))
    rise = float(np.clip(math.log10(max(top, 1e-3) / max(bottom, 1e-3)), -1.0, 1.0))
    if abs(rise) < 0.1:
        return None
    end = "top" if rise > 0 else "input"
    return PriorSuggestion(
        f"rates {10 ** abs(rise):.1f} times as high at the {end}, whose statistics shift most",
        lambda s: gaussian_log_density(s.layer_lr_shape[2] - s.layer_lr_shape[0], rise, 0.8),
    )


def _mild_augmentation_when_short(target: Target) -> PriorSuggestion | None:
    if target.epochs > 30:
        return None
    preference = {"none": 0.3, "crop": 1.0, "color": 0.0, "rand": -1.0}

    def log_density(settings: TransferSettings) -> float:
        if settings.frozen_depth >= 1.0:
            return 0.5 * preference[settings.augmentation]
        return preference[settings.augmentation] - settings.mixup - settings.label_smoothing

    return PriorSuggestion(f"mild augmentation, as {target.epochs} epochs leave little time", log_density)


def _ema_within_training(target: Target) -> PriorSuggestion | None:
    images = target.train_images or 0.0

    def log_density(settings: TransferSettings) -> float:
        steps = target.epochs * images / settings.batch_size
        horizon = 1.0 / (1.0 - settings.ema)
        # An average over more than a tenth of the run includes weights from before the learning rate decayed.
        return -max(0.0, math.log10(10 * horizon / steps)) if settings.ema else 0.0

    return PriorSuggestion(f"average the weights over at most a tenth of the {target.epochs} epochs", log_density)


def _small_batch_for_enough_steps(target: Target) -> PriorSuggestion | None:
    images = target.train_images or 0.0
    steps = target.epochs * images / 32
    if steps > 2000:
        return None
    return PriorSuggestion(
        f"small batches, as batches of 32 images give only {steps:.0f} steps",
        lambda s: -math.log2(s.batch_size / 16),
    )


_PLESTED_2021 = "Plested, Shen, Gedeon 2021, arXiv 2107.08585"
_LI_2020 = "Li et al. 2020, arXiv 2002.11770"

PRIORS = (
    Prior(
        name="transfer up to the knee",
        source=f"{_PLESTED_2021}: the best number of layers differs by dataset; nbt uses the knee of the per-unit gain",
        dimensions=("transfer_depth",),
        needs=("knee of the gain", "advantage over random weights"),
        strength=0.6,
        suggest=_transfer_up_to_knee,
    ),
    Prior(
        name="freeze when images are few",
        source=f"{_PLESTED_2021}; recorded runs of nbt, where a partial freeze adds up to seven points",
        dimensions=("frozen_depth",),
        needs=("images per class", "probe accuracy", "advantage over random weights"),
        strength=0.4,
        suggest=_freeze_when_few_images,
    ),
    Prior(
        name="pull by similarity",
        source=f"{_PLESTED_2021}: L2-SP helps where the target resembles the source and hurts where it does not",
        dimensions=("sp_mix", "sp_depth"),
        needs=("advantage over random weights",),
        strength=0.1,
        suggest=_l2_sp_by_similarity,
    ),
    Prior(
        name="effective rate by similarity",
        source=f"{_LI_2020}: similar targets prefer a small lr / (1 - momentum), dissimilar ones a larger one",
        dimensions=("body_lr", "momentum", "optimizer", "batch_size"),
        needs=("advantage over random weights",),
        strength=0.6,
        suggest=_learning_rate_by_similarity,
    ),
    Prior(
        name="momentum by similarity",
        source=f"{_LI_2020}: similar targets prefer a momentum near 0",
        dimensions=("momentum",),
        needs=("advantage over random weights",),
        strength=0.1,
        suggest=_momentum_by_similarity,
    ),
    Prior(
        name="moderate head rate",
        source=f"{_PLESTED_2021}: learning rates by layer group; {VARNO_2020}: a random head harms features",
        dimensions=("head_lr", "momentum", "optimizer", "batch_size"),
        needs=(),
        strength=0.3,
        suggest=_moderate_head_rate,
    ),
    Prior(
        name="rates by shift",
        source=f"nbt, based on {_PLESTED_2021}: units whose statistics shift most on the target need most training",
        dimensions=("layer_lr_shape",),
        needs=("statistics shift by unit",),
        strength=0.15,
        suggest=_layer_rates_by_shift,
    ),
    Prior(
        name="mild augmentation when short",
        source="recorded runs of nbt: strong augmentation does not improve accuracy within a dozen epochs",
        dimensions=("augmentation", "mixup", "label_smoothing"),
        needs=(),
        strength=0.4,
        suggest=_mild_augmentation_when_short,
    ),
    Prior(
        name="average within the training",
        source="arithmetic: the horizon of an exponential average is 1 / (1 - decay) steps",
        dimensions=("ema", "batch_size"),
        needs=("training images",),
        strength=0.3,
        suggest=_ema_within_training,
    ),
    Prior(
        name="enough steps",
        source="Masters, Luschi 2018, arXiv 1804.07612: small batches are robust; small datasets have few steps",
        dimensions=("batch_size",),
        needs=("training images",),
        strength=0.15,
        suggest=_small_batch_for_enough_steps,
    ),
    *TECHNIQUE_PRIORS,
)
