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
from nbt.search.target import Target
from nbt.settings import TransferSettings

Score = Callable[[TransferSettings], float]


@dataclass(frozen=True)
class Proposal:
    """What a heuristic suggests for a target.

    Attributes:
        words: A clause for the report, e.g. "transfer at least 74 % of the units".
        score: Log density of settings, up to a constant.
    """

    words: str
    score: Score


@dataclass(frozen=True, kw_only=True)
class Heuristic:
    """One rule.

    Attributes:
        name: What reports call it.
        source: Where it is from.
        dimensions: The settings that it speaks of.
        needs: Measures of the profile, or facts, without which it does not fire.
        strength: See the module.
        propose: Returns what it suggests, None where the target gives it no reason to.
    """

    name: str
    source: str
    dimensions: tuple[str, ...]
    needs: tuple[str, ...]
    strength: float
    propose: Callable[[Target], Proposal | None]


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


def bump(value: float, centre: float, width: float) -> float:
    """Returns the log density of a normal distribution, up to a constant, at most 9 below its mode."""
    return -min(0.5 * ((value - centre) / width) ** 2, 9.0)


# Under this share of the error that pretraining removes, spoiling the features costs little.
_LITTLE_TO_LOSE = 0.2
_SHORT_STALL = 0.1
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


def _stall_while_the_head_is_random(target: Target) -> Proposal | None:
    worth = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    if worth < _LITTLE_TO_LOSE:
        return None

    def score(settings: TransferSettings) -> float:
        # A zero head or a stall does it, the two together no better.
        quiet = max(1.0 - math.sqrt(math.sqrt(settings.head_scale)), min(settings.stall / _SHORT_STALL, 1.0))
        return worth * quiet + bump(max(settings.stall, _SHORT_STALL), _SHORT_STALL, 0.15)

    return Proposal(
        f"a small first head or a stall of about {_SHORT_STALL:.0%} of the steps, as there are good features to lose "
        f"(pretraining removes {worth:.0%} of the probe's error)",
        score,
    )


def _zap_seldom_when_short(target: Target) -> Proposal | None:
    shots = target.images_per_class or 1.0
    # Epochs that a new head needs before it is worth its name: fewer images a class are fewer steps an epoch.
    again = max(2.0, 100.0 / shots)
    if target.epochs > 10 * again:
        return None

    def score(settings: TransferSettings) -> float:
        zaps = (settings.epochs - 1) // settings.zap_period if settings.zap_period else 0
        return -settings.zap_fraction * zaps * again / target.epochs

    return Proposal(
        f"few zaps or none: a head takes about {again:.0f} of the {target.epochs} epochs to be learned again", score
    )


def _inject_by_similarity(target: Target) -> Proposal | None:
    similarity = target.tli_similarity or 0.0
    slope = float(np.clip(4.0 * (similarity - 0.5), -1.0, 1.0))
    if abs(slope) < 0.1:
        return None
    words = "inject the teacher's weights" if slope > 0 else "do not inject the teacher's weights"
    return Proposal(
        f"{words} (TLI similarity {similarity:.2f}; of 67 published pairs those below .35 lost)",
        lambda settings: slope * (settings.init == "inject"),
    )


def _expansion_when_few_images(target: Target) -> Proposal | None:
    shots = target.images_per_class or 1.0
    # Without many images the expansion is as good as the network (LQF); it is slower whatever their number.
    loss = float(np.clip(0.5 + math.log2(shots / 5.0) / 4.0, 0.2, 1.5))

    def score(settings: TransferSettings) -> float:
        squared = settings.target_scale > 0.0
        return -loss * settings.linearized - 0.5 * (squared != settings.linearized)

    return Proposal(
        f"the network itself rather than its expansion with {shots:.0f} images a class, and squared error for the "
        "expansion alone",
        score,
    )


_PLESTED = "Plested, Shen, Gedeon 2021, arXiv 2107.08585"
_VARNO = "Varno et al. 2020, arXiv 2007.01388"
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
        source=f"{_PLESTED}: rates by layer group; {_VARNO}: a random head harms features",
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
    Heuristic(
        name="stall while the head is random",
        source=f"{_VARNO}: the first errors of a random head harm features that are good",
        dimensions=("stall", "head_scale"),
        needs=("gain over a random network",),
        strength=0.2,
        propose=_stall_while_the_head_is_random,
    ),
    Heuristic(
        name="zap seldom when short",
        source="ours, on Frati et al. 2023, arXiv 2310.07996, who zap in long pretraining",
        dimensions=("zap_period", "zap_fraction"),
        needs=("images a class",),
        strength=0.3,
        propose=_zap_seldom_when_short,
    ),
    Heuristic(
        name="inject by similarity",
        source="Czyzewski 2021, arXiv 2101.02757, and 67 pairs in arXiv 2212.13970: gain and similarity correlate .83",
        dimensions=("init",),
        needs=("TLI similarity",),
        strength=0.3,
        propose=_inject_by_similarity,
    ),
    Heuristic(
        name="the expansion when images are few",
        source="Achille et al. 2021, arXiv 2012.11140 (LQF): linearised networks come near with few images",
        dimensions=("linearized", "target_scale"),
        needs=("images a class",),
        strength=0.4,
        propose=_expansion_when_few_images,
    ),
)
