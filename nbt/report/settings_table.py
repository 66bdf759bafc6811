"""Settings as one flat row of plain values and as a short summary, for tables, MLflow and run names."""

from __future__ import annotations

from nbt.settings import LAYER_LR_KNOTS, TransferSettings

Plain = float | int | bool | str

SETTING_DESCRIPTIONS = {
    "transfer_depth": "share of units, from the input, that keep pretrained weights",
    "frozen_depth": "share of units that do not train",
    "head_lr": "peak learning rate of the head",
    "body_lr": "peak learning rate of the units",
    "layer_lr_shape_input": "log10 multiplier of body_lr at the input",
    "layer_lr_shape_middle": "log10 multiplier of body_lr in the middle",
    "layer_lr_shape_top": "log10 multiplier of body_lr at the top",
    "decay_strength": "total weight decay",
    "sp_mix": "share of the decay towards the pretrained weights (L2-SP)",
    "sp_depth": "share of units to which L2-SP applies",
    "optimizer": "sgd (Nesterov) or adamw",
    "momentum": "momentum, or beta1 of adamw",
    "batch_size": "images per step",
    "label_smoothing": "share of the label spread over all classes",
    "augmentation": "augmentation of the training images",
    "mixup": "alpha of mixup",
    "ema": "decay per step of the averaged weights",
    "warmup": "share of steps over which the learning rates rise",
    "views": "augmented views in the frozen-feature cache",
    "zap_period": "epochs between resets of the head's rows, 0 is never",
    "zap_fraction": "share of the classes that a zap resets",
    "zap_scale": "standard deviation of the weights after a zap",
    "head_scale": "factor of the head's initial random weights",
    "feature_norm": "standardisation of the features before the head",
    "stall": "share of steps, from the first, in which only the head trains",
    "head_lr_multiplier": "factor of head_lr during the stall",
    "init": "initial weights of the units",
    "teacher": "weights that are injected",
    "blend": "share of the centre crop in an injected tensor",
    "pretrain_scheme": "training scheme of the source model",
    "pretrain_zap_period": "epochs between zaps in the training of the source model, 0 is never",
    "linearized": "whether the first-order expansion of the network is trained",
    "target_scale": "scale of the targets of squared error, 0 is cross-entropy",
    "method": "continual method of a stream of tasks",
    "curvature": "curvature of the penalty of dlcft",
    "penalty_strength": "factor of the penalty of ewc and dlcft",
    "epochs": "length of the training",
}
"""Flat setting name -> short description."""


def flat_settings(settings: TransferSettings) -> dict[str, Plain]:
    """Returns every setting by name; `layer_lr_shape` becomes one entry per knot, e.g. "layer_lr_shape_input".

    The names and their order are the same for all settings.
    """
    flat: dict[str, Plain] = {}
    for name, value in settings.to_dict().items():
        if isinstance(value, list):
            flat |= {f"{name}_{knot}": item for knot, item in zip(LAYER_LR_KNOTS, value, strict=True)}
        else:
            flat[name] = value
    return flat


def recipe_summary(settings: TransferSettings) -> str:
    """Returns a short summary of the recipe, e.g. "depth 0.60 frozen 0.30 lr 0.013".

    Depths and the relevant learning rate are always included; techniques, optimizer and mixup only where they are used.
    """
    probe = settings.frozen_depth >= 1.0
    words = [
        f"depth {settings.transfer_depth:.2f}",
        f"frozen {settings.frozen_depth:.2f}",
        f"head lr {settings.head_lr:.2g}" if probe else f"lr {settings.body_lr:.2g}",
    ]
    if settings.sp_mix > 0.0:
        words.append(f"sp {settings.sp_mix:.2f}")
    if settings.optimizer != "sgd":
        words.append(settings.optimizer)
    words += _technique_summary(settings)
    if settings.mixup > 0.0:
        words.append(f"mixup {settings.mixup:.2g}")
    return " ".join(words)


def _technique_summary(settings: TransferSettings) -> list[str]:
    words = []
    if settings.zap_period:
        words.append(f"zap {settings.zap_period}")
    if settings.head_scale < 1.0:
        words.append(f"head {settings.head_scale:.2g}")
    if settings.feature_norm != "none":
        words.append(f"norm {settings.feature_norm}")
    if settings.stall:
        words.append(f"stall {settings.stall:.2f}")
    if settings.init != "pretrained":
        words.append(settings.init)
    if settings.pretrain_scheme != "iid" or settings.pretrain_zap_period:
        words.append(f"source {settings.pretrain_scheme} zap {settings.pretrain_zap_period}")
    if settings.method != "finetune":
        words.append(settings.method)
    if settings.linearized:
        words.append("linearized")
    if settings.target_scale:
        words.append(f"squared error {settings.target_scale:g}")
    return words
