"""Heuristics: what the fit profile suggests for single settings, each a soft density with a name and a source.

A heuristic is worth `strength` units of merit (`nbt.search.merit`) for one standard deviation of its log density over
random settings, before any trial is seen. `nbt.search.guide` learns from the study's own trials how much of that holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nbt.search.encoding import effective_rate
from nbt.search.heuristic import Heuristic, Proposal, bump
from nbt.search.target import Target
from nbt.search.technique_heuristics import TECHNIQUE_HEURISTICS, VARNO
from nbt.settings import TransferSettings


@dataclass(frozen=True, kw_only=True)
class Firing:
    """Whether a heuristic fired on a target.

    Attributes:
        heuristic: Which one.
        proposal: What it suggests, None where it did not fire.
        reason: Why it did not fire, else "".
    """

    heuristic: Heuristic
    proposal: Proposal | None
    reason: str = ""


_NEEDS: dict[str, Callable[[Target], object]] = {
    "images a class": lambda target: target.images_per_class,
    "training images": lambda target: target.train_images,
    "probe accuracy": lambda target: target.probe,
    "gain over a random network": lambda target: target.advantage,
    "knee of the gain": lambda target: target.scalars.get("knee_depth"),
    "TLI similarity": lambda target: target.tli_similarity,
    "statistics shift by unit": lambda target: target.layer("mean_shift") or None,
}


def fire(target: Target, varied: Sequence[str]) -> list[Firing]:
    """Asks every heuristic that speaks of a dimension that is varied.

    Args:
        target: What is known of the task.
        varied: Names of the settings that the space varies.
    """
    return [_fire(one, target) for one in HEURISTICS if set(one.dimensions) & set(varied)]


def _fire(heuristic: Heuristic, target: Target) -> Firing:
    missing = [need for need in heuristic.needs if _NEEDS[need](target) is None]
    if missing:
        return Firing(heuristic=heuristic, proposal=None, reason=f"not measured: {', '.join(missing)}")
    proposal = heuristic.propose(target)
    reason = "" if proposal is not None else "nothing in the profile speaks for it"
    return Firing(heuristic=heuristic, proposal=proposal, reason=reason)


# A gain below this is within the error of a probe on a few hundred images.
_SMALL_GAIN = 0.03


def _transfer_up_to_knee(target: Target) -> Proposal | None:
    gain, knee = target.layer("gain"), target.scalars["knee_depth"]
    if not gain or max(gain) < _SMALL_GAIN or knee <= 0.0:
        return None
    kept = gain[-1] >= 0.9 * max(gain)

    def score(settings: TransferSettings) -> float:
        below = bump(min(settings.transfer_depth, knee), knee, 0.15)
        # Past the knee the weights add little but cost nothing, as long as the gain does not fall again.
        return below if kept else below + bump(max(settings.transfer_depth, knee), knee, 0.3)

    limit = "" if kept else ", not much more"
    return Proposal(
        f"transfer at least {knee:.0%} of the units, where the gain over random weights levels off{limit}", score
    )


def _freeze_when_few_images(target: Target) -> Proposal | None:
    shots, probe = target.images_per_class or 1.0, target.probe or 0.0
    advantage = target.advantage or 0.0
    if advantage <= 0.0:
        return None
    # 10 images a class: freeze most; 1000: nothing. A probe that is good already needs less training.
    centre = float(np.clip(1.15 - 0.35 * math.log10(max(shots, 1.0)) + 0.2 * (probe - 0.5), 0.0, 0.95))
    return Proposal(
        f"freeze about {centre:.0%} of the units ({shots:.0f} images a class, probe accuracy {probe:.0%})",
        lambda settings: bump(settings.frozen_depth, centre, 0.3),
    )


def _pull_by_similarity(target: Target) -> Proposal | None:
    advantage = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    slope = 2.0 * advantage - 1.0

    def score(settings: TransferSettings) -> float:
        reach = settings.sp_mix * min(settings.sp_depth, settings.transfer_depth)
        return slope * reach

    what = "pull most units towards the pretrained weights" if slope > 0 else "pull few units towards them, or none"
    return Proposal(f"{what} (L2-SP; pretraining removes {advantage:.0%} of the probe's error)", score)


def _rate_by_similarity(target: Target) -> Proposal | None:
    advantage = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    centre = -0.7 - advantage

    def score(settings: TransferSettings) -> float:
        if settings.frozen_depth >= 1.0:
            return bump(0.7, 0.0, 0.7)  # nothing to say, like an average draw
        return bump(effective_rate(settings, settings.body_lr), centre, 0.7)

    return Proposal(f"an effective rate lr / (1 - momentum) of about {10**centre:.2g} for the units", score)


def _momentum_by_similarity(target: Target) -> Proposal | None:
    slope = 0.5 - float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    if abs(slope) < 0.05:
        return None
    words = "a high momentum" if slope > 0 else "a low momentum"
    return Proposal(
        f"{words}, as the target is {'unlike' if slope > 0 else 'like'} the source", lambda s: slope * s.momentum
    )


def _moderate_head_rate(target: Target) -> Proposal | None:
    # A head from random weights has more to learn than units that are good already, so more than the default's .1; far
    # more sends back gradients that spoil the features before the head is any good.
    return Proposal(
        "an effective head rate lr / (1 - momentum) of about 0.2",
        lambda settings: bump(effective_rate(settings, settings.head_lr), math.log10(0.2), 0.8),
    )


def _rates_by_shift(target: Target) -> Proposal | None:
    shift = target.layer("mean_shift")
    if len(shift) < 3:
        return None
    third = max(1, len(shift) // 3)
    low, top = float(np.mean(shift[:third])), float(np.mean(shift[-third:]))
    rise = float(np.clip(math.log10(max(top, 1e-3) / max(low, 1e-3)), -1.0, 1.0))
    if abs(rise) < 0.1:
        return None
    where = "top" if rise > 0 else "input"
    return Proposal(
        f"rates {10 ** abs(rise):.1f} times as high at the {where}, whose statistics shift most",
        lambda s: bump(s.layer_lr_shape[2] - s.layer_lr_shape[0], rise, 0.8),
    )


def _mild_augmentation_when_short(target: Target) -> Proposal | None:
    if target.epochs > 30:
        return None
    worth = {"none": 0.3, "crop": 1.0, "color": 0.0, "rand": -1.0}

    def score(settings: TransferSettings) -> float:
        if settings.frozen_depth >= 1.0:
            return 0.5 * worth[settings.augmentation]
        return worth[settings.augmentation] - settings.mixup - settings.label_smoothing

    return Proposal(f"mild augmentation, as {target.epochs} epochs leave little time", score)


def _average_within_training(target: Target) -> Proposal | None:
    images = target.train_images or 0.0

    def score(settings: TransferSettings) -> float:
        steps = target.epochs * images / settings.batch_size
        horizon = 1.0 / (1.0 - settings.ema)
        # An average over more than a tenth of the run still holds weights from before the rate came down.
        return -max(0.0, math.log10(10 * horizon / steps)) if settings.ema else 0.0

    return Proposal(f"no average of the weights over more than a tenth of the {target.epochs} epochs", score)


def _enough_steps(target: Target) -> Proposal | None:
    images = target.train_images or 0.0
    steps = target.epochs * images / 32
    if steps > 2000:
        return None
    return Proposal(
        f"small batches, as 32 images a step give only {steps:.0f} steps", lambda s: -math.log2(s.batch_size / 16)
    )


_PLESTED = "Plested, Shen, Gedeon 2021, arXiv 2107.08585"
_LI = "Li et al. 2020, arXiv 2002.11770"

HEURISTICS = (
    Heuristic(
        name="transfer up to the knee",
        source=f"{_PLESTED}: the best number of layers differs by dataset; the knee of the per-unit gain is ours",
        dimensions=("transfer_depth",),
        needs=("knee of the gain", "gain over a random network"),
        strength=0.6,
        propose=_transfer_up_to_knee,
    ),
    Heuristic(
        name="freeze when images are few",
        source=f"{_PLESTED}; plain recipes on our tasks, where a partial freeze adds up to seven points",
        dimensions=("frozen_depth",),
        needs=("images a class", "probe accuracy", "gain over a random network"),
        strength=0.4,
        propose=_freeze_when_few_images,
    ),
    Heuristic(
        name="pull by similarity",
        source=f"{_PLESTED}: L2-SP helps where the target resembles the source and hurts where it does not",
        dimensions=("sp_mix", "sp_depth"),
        needs=("gain over a random network",),
        strength=0.1,
        propose=_pull_by_similarity,
    ),
    Heuristic(
        name="effective rate by similarity",
        source=f"{_LI}: similar targets want a small lr / (1 - momentum), dissimilar ones a larger",
        dimensions=("body_lr", "momentum", "optimizer", "batch_size"),
        needs=("gain over a random network",),
        strength=0.6,
        propose=_rate_by_similarity,
    ),
    Heuristic(
        name="momentum by similarity",
        source=f"{_LI}: similar targets prefer a momentum near 0",
        dimensions=("momentum",),
        needs=("gain over a random network",),
        strength=0.1,
        propose=_momentum_by_similarity,
    ),
    Heuristic(
        name="moderate head rate",
        source=f"{_PLESTED}: rates by layer group; {VARNO}: a random head harms features",
        dimensions=("head_lr", "momentum", "optimizer", "batch_size"),
        needs=(),
        strength=0.3,
        propose=_moderate_head_rate,
    ),
    Heuristic(
        name="rates by shift",
        source=f"ours, on {_PLESTED}: units whose statistics the target shifts most have most to learn",
        dimensions=("layer_lr_shape",),
        needs=("statistics shift by unit",),
        strength=0.15,
        propose=_rates_by_shift,
    ),
    Heuristic(
        name="mild augmentation when short",
        source="our recorded runs: strong augmentation does not pay within a dozen epochs",
        dimensions=("augmentation", "mixup", "label_smoothing"),
        needs=(),
        strength=0.4,
        propose=_mild_augmentation_when_short,
    ),
    Heuristic(
        name="average within the training",
        source="arithmetic: the horizon of an exponential average is 1 / (1 - decay) steps",
        dimensions=("ema", "batch_size"),
        needs=("training images",),
        strength=0.3,
        propose=_average_within_training,
    ),
    Heuristic(
        name="enough steps",
        source="Masters, Luschi 2018, arXiv 1804.07612: small batches are robust; steps an epoch are few here",
        dimensions=("batch_size",),
        needs=("training images",),
        strength=0.15,
        propose=_enough_steps,
    ),
    *TECHNIQUE_HEURISTICS,
)
