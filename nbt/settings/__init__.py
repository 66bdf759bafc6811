"""Settings: the recipe of one fine-tuning run, and the settings of source models and streams. Needs no torch."""

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
