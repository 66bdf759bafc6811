"""Numerical encoding of settings for the surrogate models; settings that train similarly are close to each other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.settings import (
    AUGMENTATIONS,
    CURVATURES,
    FEATURE_NORMS,
    INITS,
    LAYER_LR_KNOTS,
    METHODS,
    PRETRAIN_SCHEMES,
    TECHNIQUES,
    TransferSettings,
)

FloatArray = NDArray[np.float64]

# AdamW needs about a hundredth of SGD's effective learning rate lr / (1 - momentum), because its steps do not shrink
# with the gradient. Adding 2 to log10 of its rate makes the two comparable.
_ADAMW_OFFSET = 2.0
# With this value, the distance between any two choices of a categorical setting is 1.
_ONE_HOT_VALUE = math.sqrt(0.5)
_DEPTH_GRID = np.linspace(0.0, 1.0, 21)
_KNOT_DEPTHS = np.linspace(0.0, 1.0, len(LAYER_LR_KNOTS))
_REFERENCE_BATCH, _REFERENCE_EPOCHS = 32, 12
_MIN_DECAY = 1e-7
_MIN_PENALTY = 1e-4
# One coordinate would put every fifth pair of teachers within a tenth of its range.
_TEACHER_PARTS = 4

BASE_COORDINATES = (
    *("transfer_depth", "frozen_depth", "trained_share", "head_rate", "body_rate", "mean_rate"),
    *(f"layer_lr_{knot}" for knot in LAYER_LR_KNOTS),
    *("decay_strength", "sp_mix", "sp_depth", "momentum", "adamw", "batch_size", "label_smoothing"),
    *(f"augmentation_{policy}" for policy in AUGMENTATIONS),
    *("mixup", "ema"),
)
_TECHNIQUE_COORDINATES = (
    *("zapping", "zap_scale", "head_scale", "stall", "stalled_head_rate"),
    *(f"feature_norm_{norm}" for norm in FEATURE_NORMS),
    *(f"init_{init}" for init in INITS),
    "blend",
    *(f"teacher_{part}" for part in range(_TEACHER_PARTS)),
    *(f"pretrain_{scheme}" for scheme in PRETRAIN_SCHEMES),
    "pretrain_zapping",
    *("linearized", "squared_error", "target_scale"),
    *(f"method_{method}" for method in METHODS[1:]),
    *(f"curvature_{kind}" for kind in CURVATURES),
    "penalty_strength",
    *("frozen_top", "balanced_classes", "zap_until", "zap_warmup"),
)


def coordinate_names() -> tuple[str, ...]:
    """Returns the names of the coordinates; those of registered techniques come last."""
    registered = (name for technique in TECHNIQUES.values() for name in technique.coordinates)
    return (*BASE_COORDINATES, *_TECHNIQUE_COORDINATES, *registered)


def encode(settings: Sequence[TransferSettings]) -> FloatArray:
    """Returns settings as points, (settings, len(coordinate_names())), with most coordinates scaled to about 0 ... 1.

    Learning rates are encoded as effective rates, log10 of lr / (1 - momentum) per image (Li et al. 2020, arXiv
    2002.11770; the batch size as in Smith, Le 2018, arXiv 1710.06451), because settings with the same effective rate
    train similarly. `mean_rate` averages over the units that train. The coordinates do not depend on the search space,
    so that runs of different spaces can be compared; a setting that a space does not vary adds no distance.
    """
    registered = [encode for technique in TECHNIQUES.values() for encode in technique.coordinates.values()]
    rows = [
        [*_encode_base(recipe, mean), *_encode_techniques(recipe), *[encode(recipe) for encode in registered]]
        for recipe, mean in zip(settings, _mean_log_multipliers(settings), strict=True)
    ]
    return np.array(rows).reshape(len(settings), len(coordinate_names()))


def encode_with_length(settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
    """Returns settings as points of `encode` with a last coordinate for the length of the training.

    It is 0 for 12 epochs, and grows by .5 where the length doubles.

    Args:
        settings: The settings.
        points: `encode` of the settings, if already computed.
    """
    points = encode(settings) if points is None else points
    lengths = [math.log2(recipe.epochs / _REFERENCE_EPOCHS) / 2 for recipe in settings]
    return np.asarray(np.c_[points, np.array(lengths).reshape(-1, 1)])


def _mean_log_multipliers(settings: Sequence[TransferSettings]) -> list[float]:
    """Returns log10 of the factor of the unit rates, averaged over the units that train, for each settings."""
    shapes = np.array([recipe.layer_lr_shape for recipe in settings]).reshape(len(settings), len(_KNOT_DEPTHS))
    # `np.interp`, for all settings at once; behind the last knot is nothing.
    slopes = np.c_[np.diff(shapes) / np.diff(_KNOT_DEPTHS), np.zeros(len(settings))]
    knots = np.searchsorted(_KNOT_DEPTHS, _DEPTH_GRID, side="right") - 1
    rows = slopes[:, knots] * (_DEPTH_GRID - _KNOT_DEPTHS[knots]) + shapes[:, knots]
    firsts = np.searchsorted(_DEPTH_GRID, [recipe.frozen_depth - 1e-9 for recipe in settings]).tolist()
    return [
        float(np.add.reduce(row[first:])) / (len(_DEPTH_GRID) - first) for row, first in zip(rows, firsts, strict=True)
    ]


def _encode_base(settings: TransferSettings, mean_log_multiplier: float) -> list[float]:
    """Returns the coordinates of ordinary fine-tuning."""
    head, body = (log_effective_lr(settings, rate) for rate in (settings.head_lr, settings.body_lr))
    return [
        settings.transfer_depth,
        settings.frozen_depth,
        settings.transfer_depth - settings.frozen_depth,
        head / 4,
        body / 4,
        (body + mean_log_multiplier) / 4,
        *(value / 2 for value in settings.layer_lr_shape),
        math.log10(max(settings.decay_strength, _MIN_DECAY)) / 5,
        settings.sp_mix,
        settings.sp_depth,
        settings.momentum,
        float(settings.optimizer == "adamw"),
        math.log2(settings.batch_size / _REFERENCE_BATCH) / 2,
        5 * settings.label_smoothing,
        *_one_hot(settings.augmentation, AUGMENTATIONS),
        2.5 * settings.mixup,
        # The share of the moving average that one step replaces, in decades.
        -math.log10(1 - settings.ema) / 2.3,
    ]


def _encode_techniques(settings: TransferSettings) -> list[float]:
    """Returns the coordinates of the optional techniques; they are constant while no technique is used."""
    zapping = settings.zap_fraction / settings.zap_period if settings.zap_period else 0.0
    injects = settings.source.init == "inject"
    return [
        zapping,
        _ONE_HOT_VALUE * (settings.zap_scale == "as_released") if settings.zap_period else 0.0,
        # The fourth root puts a scale of 1e-4 close to 0 and far from 1.
        settings.head_scale**0.25,
        2 * settings.stall,
        math.log10(settings.head_lr_multiplier) / 1.5 if settings.stall else 0.0,
        *_one_hot(settings.feature_norm, FEATURE_NORMS),
        *_one_hot(settings.source.init, INITS),
        settings.source.blend if injects else 0.0,
        *(_encode_teacher(settings.source.teacher) if injects else [0.0] * _TEACHER_PARTS),
        *_one_hot(settings.source.pretrain_scheme, PRETRAIN_SCHEMES),
        1 / settings.source.pretrain_zap_period if settings.source.pretrain_zap_period else 0.0,
        *_encode_continual(settings),
        settings.frozen_top,
        _ONE_HOT_VALUE * (settings.class_weights == "balanced"),
        settings.zap_until if settings.zap_period else 1.0,
        settings.zap_warmup if settings.zap_period else 0.0,
    ]


def _encode_teacher(name: str) -> list[float]:
    """Returns the coordinates of a teacher.

    Teachers have no order: the bytes of a digest separate any two by a distance that is the same in every process.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return [byte / 255 - 0.5 for byte in digest[:_TEACHER_PARTS]]


def _encode_continual(settings: TransferSettings) -> list[float]:
    """Returns the coordinates of linearisation, the squared error and the continual-learning methods."""
    is_squared_error, has_penalty = settings.target_scale > 0.0, settings.stream.method in ("ewc", "dlcft")
    return [
        float(settings.linearized),
        _ONE_HOT_VALUE * is_squared_error,
        math.log10(settings.target_scale) / 2 if is_squared_error else 0.0,
        # The first method is neutral and has no coordinate, so that the rounding of distances in other spaces does not
        # change.
        *(float(settings.stream.method == method) for method in METHODS[1:]),
        *(
            _one_hot(settings.stream.curvature, CURVATURES)
            if settings.stream.method == "dlcft"
            else [0.0] * len(CURVATURES)
        ),
        math.log10(max(settings.stream.penalty_strength, _MIN_PENALTY)) / 3 if has_penalty else 0.0,
    ]


def log_effective_lr(settings: TransferSettings, rate: float) -> float:
    """Returns log10 of the effective learning rate, normalised to a batch of 32 images.

    Args:
        settings: Settings with the optimizer, momentum and batch size.
        rate: Nominal learning rate.
    """
    log_rate = math.log10(rate) - math.log10(settings.batch_size / _REFERENCE_BATCH)
    is_adamw = settings.optimizer == "adamw"
    return log_rate + (_ADAMW_OFFSET if is_adamw else -math.log10(1 - settings.momentum))


def _one_hot(value: Any, choices: Sequence[Any]) -> list[float]:
    """Returns `_ONE_HOT_VALUE` for the given choice and 0 for the others."""
    return [_ONE_HOT_VALUE * (value == choice) for choice in choices]
