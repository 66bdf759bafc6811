"""Settings of fine-tuning runs, of source models and of streams. Importing this package does not import PyTorch."""

from nbt.settings.transfer import (
    AUGMENTATIONS,
    CURVATURES,
    FEATURE_NORMS,
    INITS,
    LAYER_LR_KNOTS,
    METHODS,
    OPTIMIZERS,
    PRETRAIN_SCHEMES,
    ZAP_SCALES,
    FieldRule,
    TransferSettings,
    repair,
    setting_names,
    setting_rule,
)

__all__ = [
    "AUGMENTATIONS",
    "CURVATURES",
    "FEATURE_NORMS",
    "INITS",
    "LAYER_LR_KNOTS",
    "METHODS",
    "OPTIMIZERS",
    "PRETRAIN_SCHEMES",
    "ZAP_SCALES",
    "FieldRule",
    "repair",
    "setting_names",
    "setting_rule",
    "TransferSettings",
]
