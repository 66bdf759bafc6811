"""What a recipe means for a training of a given size, and which recipes make no sense there."""

from __future__ import annotations

import math

from nbt.errors import UsageError
from nbt.models.backbone_spec import ENCODER_NAMES, BackboneSpec
from nbt.models.teacher import absolute_teacher_name, parse_teacher
from nbt.settings import TransferSettings, repair

MISSING_TEACHER_MESSAGE = "init: inject needs a teacher to inject from: BACKBONE, or BACKBONE=FILE"


def count_batches(n_train: int, batch_size: int) -> int:
    """Returns the steps of an epoch; their batches differ by one image at most."""
    return max(1, math.ceil(n_train / batch_size))


def stall_steps(settings: TransferSettings, n_train: int) -> int:
    """Returns for how many steps, from the first, the head alone trains; any stall has one at least."""
    steps = settings.epochs * count_batches(n_train, settings.batch_size)
    return max(1, round(settings.stall * steps)) if settings.stall > 0.0 else 0


def check_recipe(settings: TransferSettings, n_train: int) -> None:
    """Checks a recipe as the user gave it against the training that it is for. It costs nothing.

    Args:
        settings: Not yet repaired.
        n_train: Training images.

    Raises:
        UsageError: Zaps would never come, batch statistics would have to be taken of one image, or a linearised network
            would have a zero head.
    """
    if settings.linearized and settings.head_scale == 0.0 and settings.frozen_depth < 1.0:
        raise UsageError(
            "head_scale: 0 cannot go with linearized: around a zero head the expansion knows nothing of the backbone "
            "and only a linear probe would be trained; use a head_scale above 0, or linearized: false"
        )
    if settings.zap_period >= settings.epochs:
        raise UsageError(
            f"zap_period: {settings.zap_period} is never reached in {settings.epochs} epochs "
            "(a zap opens an epoch, but not the first); give a shorter period, more epochs, or 0 for never"
        )
    smallest = n_train // count_batches(n_train, settings.batch_size)
    if settings.feature_norm == "batch" and smallest < 2:
        raise UsageError(
            f"feature_norm: batch statistics need 2 images or more in every batch; {n_train} training images in batches"
            f" of up to {settings.batch_size} leave one of {smallest}: change batch_size, or use feature_norm: target"
        )


def is_trained_by_nbt(backbone: BackboneSpec, dataset: str, weights: str) -> bool:
    """Returns whether the weights of a task are trained by nbt: how can then be a setting of a trial."""
    return weights == "default" and dataset == "digits" and backbone.name in ENCODER_NAMES


def check_pretraining(settings: TransferSettings, backbone: BackboneSpec, dataset: str, weights: str) -> None:
    """Checks that the source can be trained as a recipe says.

    Raises:
        UsageError: It asks for another training of weights that are not trained here.
    """
    asked = settings.pretrain_scheme != "iid" or settings.pretrain_zap_period > 0
    if asked and not is_trained_by_nbt(backbone, dataset, weights):
        raise UsageError(
            f"pretrain_scheme, pretrain_zap_period: the weights of {backbone.text} on {dataset} are not trained by "
            "nbt; train a source with nbt pretrain and give it as --weights FILE"
        )


def check_starting_weights(
    settings: TransferSettings, backbone: BackboneSpec, dataset: str, weights: str, *, teacher: str | None = None
) -> None:
    """Checks, before any image is read, that there is what a recipe starts from.

    Args:
        settings: Of the training.
        backbone: Of the task.
        dataset: Of the task: its name, or the path of a user's own.
        weights: Of the task: "default", "none" or a file.
        teacher: Full name of one that is loaded.

    Raises:
        UsageError: An injection has no teacher, or one that is unknown or whose file does not exist; or as
            `check_pretraining`.
    """
    settings = repair(settings)
    if settings.init != "inject":
        check_pretraining(settings, backbone, dataset, weights)
    elif not settings.teacher:
        raise UsageError(MISSING_TEACHER_MESSAGE)
    elif absolute_teacher_name(settings.teacher) != teacher:
        parse_teacher(settings.teacher)
