"""Priors of the optional techniques: FAST's stall, zapping, weight injection and linearised fine-tuning."""

from __future__ import annotations

import math

import numpy as np

from nbt.settings import TransferSettings
from nbt.tuning.priors.prior import Prior, PriorSuggestion, gaussian_log_density
from nbt.tuning.target import Target

# Below this share of the probe's error that pretraining removes, harming the features costs little.
_MIN_ADVANTAGE = 0.2
_STALL_FRACTION = 0.1


def _stall_while_the_head_is_random(target: Target) -> PriorSuggestion | None:
    advantage = float(np.clip(target.advantage or 0.0, 0.0, 1.0))
    if advantage < _MIN_ADVANTAGE:
        return None

    def log_density(settings: TransferSettings) -> float:
        # A small head or a stall protects the features; both together do not protect them better.
        protection = max(1.0 - math.sqrt(math.sqrt(settings.head_scale)), min(settings.stall / _STALL_FRACTION, 1.0))
        return advantage * protection + gaussian_log_density(
            max(settings.stall, _STALL_FRACTION), _STALL_FRACTION, 0.15
        )

    return PriorSuggestion(
        f"a small initial head or a stall of about {_STALL_FRACTION:.0%} of the steps, to protect good features "
        f"(pretraining removes {advantage:.0%} of the probe's error)",
        log_density,
    )


def _zap_rarely_when_short(target: Target) -> PriorSuggestion | None:
    # Epochs that a reset head needs to recover: with fewer images per class there are fewer steps per epoch.
    recovery = max(2.0, 100.0 / (target.images_per_class or 1.0))
    if target.epochs > 10 * recovery:
        return None

    def log_density(settings: TransferSettings) -> float:
        zaps = (settings.epochs - 1) // settings.zap_period if settings.zap_period else 0
        return -settings.zap_fraction * zaps * recovery / target.epochs

    return PriorSuggestion(
        f"few zaps or none: a reset head needs about {recovery:.0f} of the {target.epochs} epochs to recover",
        log_density,
    )


def _stop_zapping_early(target: Target) -> PriorSuggestion | None:
    def log_density(settings: TransferSettings) -> float:
        outside = max(0.5 - settings.zap_until, settings.zap_until - 0.75, 0.0)
        return gaussian_log_density(outside if settings.zap_period else 0.15, 0.0, 0.15)

    return PriorSuggestion("no zap after 50 to 75 % of the steps, so that the head can train again", log_density)


def _inject_by_similarity(target: Target) -> PriorSuggestion | None:
    similarity = target.tli_similarity or 0.0
    slope = float(np.clip(4.0 * (similarity - 0.5), -1.0, 1.0))
    if abs(slope) < 0.1:
        return None
    words = "inject the teacher's weights" if slope > 0 else "do not inject the teacher's weights"
    return PriorSuggestion(
        f"{words} (TLI similarity {similarity:.2f}; of 67 published pairs, those below 0.35 lost accuracy)",
        lambda settings: slope * (settings.source.init == "inject"),
    )


def _linearized_when_few_images(target: Target) -> PriorSuggestion | None:
    images_per_class = target.images_per_class or 1.0
    # With few images the expansion is as accurate as the network (LQF), but it is always slower.
    loss = float(np.clip(0.5 + math.log2(images_per_class / 5.0) / 4.0, 0.2, 1.5))

    def log_density(settings: TransferSettings) -> float:
        is_squared_error = settings.target_scale > 0.0
        return -loss * settings.linearized - 0.5 * (is_squared_error != settings.linearized)

    return PriorSuggestion(
        f"train the network rather than its first-order expansion with {images_per_class:.0f} images per class, and "
        "use squared error only with the expansion",
        log_density,
    )


VARNO_2020 = "Varno et al. 2020, arXiv 2007.01388"

TECHNIQUE_PRIORS = (
    Prior(
        name="stall while the head is random",
        source=f"{VARNO_2020}: the first errors of a random head harm good features",
        dimensions=("stall", "head_scale"),
        needs=("advantage over random weights",),
        strength=0.2,
        suggest=_stall_while_the_head_is_random,
    ),
    Prior(
        name="zap seldom when short",
        source="nbt, based on Frati et al. 2023, arXiv 2310.07996, who zap during long pretraining",
        dimensions=("zap_period", "zap_fraction"),
        needs=("images per class",),
        strength=0.3,
        suggest=_zap_rarely_when_short,
    ),
    Prior(
        name="stop zapping early",
        source="runs of nbt on digits: with a falling rate, a head that is reset in the last third does not recover",
        dimensions=("zap_until",),
        needs=(),
        strength=0.3,
        suggest=_stop_zapping_early,
    ),
    Prior(
        name="inject by similarity",
        source="Czyzewski 2021, arXiv 2101.02757, and 67 pairs in arXiv 2212.13970: gain and similarity correlate 0.83",
        dimensions=("init",),
        needs=("TLI similarity",),
        strength=0.3,
        suggest=_inject_by_similarity,
    ),
    Prior(
        name="the expansion when images are few",
        source="Achille et al. 2021, arXiv 2012.11140 (LQF): linearised networks come close with few images",
        dimensions=("linearized", "target_scale"),
        needs=("images per class",),
        strength=0.4,
        suggest=_linearized_when_few_images,
    ),
)
