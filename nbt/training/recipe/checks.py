"""Number of steps of a recipe, and checks of recipes against the data and weights of a task."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection

from nbt.errors import UsageError
from nbt.models.backbone_spec import ENCODER_NAMES, BackboneSpec
from nbt.models.teacher import canonical_teacher_name, parse_teacher
from nbt.settings import TransferSettings, repair

_log = logging.getLogger("nbt")

MISSING_TEACHER_MESSAGE = "init: inject needs a teacher; give BACKBONE or BACKBONE=FILE"


def count_batches(n_train: int, batch_size: int) -> int:
    """Returns the number of steps per epoch; the sizes of their batches differ by at most one image."""
    return max(1, math.ceil(n_train / batch_size))


def stall_steps(settings: TransferSettings, steps_per_epoch: int) -> int:
    """Returns the number of steps, from the first, in which the head alone trains; at least 1 with a stall."""
    return max(1, round(settings.stall * settings.epochs * steps_per_epoch)) if settings.stall > 0.0 else 0


def check_recipe(settings: TransferSettings, n_train: int) -> None:
    """Checks a recipe, as the user gave it, against the number of training images.

    Args:
        settings: The recipe before its repair.
        n_train: Number of training images.

    Raises:
        UsageError: No zap would take place, a batch for batch statistics would have one image, or a linearised network
            would have a zero head.
    """
    if settings.linearized and settings.head_scale == 0.0 and settings.frozen_depth < 1.0:
        raise UsageError(
            "head_scale: 0 cannot be combined with linearized: with a zero head, a change of the backbone does not "
            "change the output, so only a linear probe would be trained; use a head_scale above 0 or linearized: false"
        )
    if settings.zap_period >= settings.epochs:
        raise UsageError(
            f"zap_period: {settings.zap_period} is never reached in {settings.epochs} epochs "
            "(zaps take place at the start of an epoch, except the first); use a shorter period, more epochs, or 0 for "
            "no zaps"
        )
    if settings.zap_period and not settings.is_zap_due(settings.zap_period + 1):
        raise UsageError(
            f"zap_until: the first zap, after {settings.zap_period} of {settings.epochs} epochs, would come after the "
            f"share {settings.zap_until:g} of the steps; use a shorter zap_period, a greater zap_until, or zap_period: "
            "0 for no zaps"
        )
    if settings.frozen_top and settings.frozen_depth + settings.frozen_top >= 1.0:
        _log.warning(
            "frozen_depth %g and frozen_top %g leave only the head to train", settings.frozen_depth, settings.frozen_top
        )
    smallest = n_train // count_batches(n_train, settings.batch_size)
    if settings.feature_norm == "batch" and smallest < 2:
        raise UsageError(
            f"feature_norm: batch statistics need at least 2 images per batch, but {n_train} training images with a "
            f"batch_size of {settings.batch_size} give a batch of {smallest}; change batch_size or use feature_norm: "
            "target"
        )


def is_trained_by_nbt(backbone: BackboneSpec, dataset: str, weights: str) -> bool:
    """Returns whether nbt trains the default weights of a task; their training can then be a setting of trials."""
    return weights == "default" and dataset == "digits" and backbone.name in ENCODER_NAMES


def check_pretraining(settings: TransferSettings, backbone: BackboneSpec, dataset: str, weights: str) -> None:
    """Checks that nbt can train the source with the scheme of a recipe.

    Raises:
        UsageError: The recipe sets a pretraining scheme or zap period for weights that nbt does not train.
    """
    changes_pretraining = settings.source.pretrain_scheme != "iid" or settings.source.pretrain_zap_period > 0
    if changes_pretraining and not is_trained_by_nbt(backbone, dataset, weights):
        raise UsageError(
            f"pretrain_scheme, pretrain_zap_period: the weights of {backbone.text} on {dataset} are not trained by "
            "nbt; train a source with nbt pretrain and give it as --weights FILE"
        )


def check_starting_weights(
    settings: TransferSettings, backbone: BackboneSpec, dataset: str, weights: str, *, teachers: Collection[str] = ()
) -> None:
    """Checks, without reading images, that the starting weights of a recipe exist.

    Args:
        settings: The recipe.
        backbone: The task's backbone.
        dataset: The task's dataset: its name or its path.
        weights: The task's weights: "default", "none" or a file.
        teachers: Names of the teachers that are already loaded.

    Raises:
        UsageError: The recipe is for another backbone; it injects weights and has no teacher, an unknown teacher, or
            one whose file does not exist; or as in `check_pretraining`.
    """
    # The name of a backbone in a search begins with its specification.
    if settings.backbone and not f"{settings.backbone}, ".startswith(f"{backbone.text}, "):
        raise UsageError(
            f"backbone: these settings were found for {settings.backbone}, but the task has {backbone.text}; give the "
            "options --backbone, --weights and --image-size that they were found with, which the comments of "
            f"recommended.yaml name, or remove the setting backbone to train {backbone.text} with them"
        )
    settings = repair(settings)
    if settings.source.init != "inject":
        check_pretraining(settings, backbone, dataset, weights)
    elif not settings.source.teacher:
        raise UsageError(MISSING_TEACHER_MESSAGE)
    elif canonical_teacher_name(settings.source.teacher) not in teachers:
        parse_teacher(settings.source.teacher)
