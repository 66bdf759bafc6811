"""Settings of fine-tuning runs, of source models and of streams. Importing this package does not import PyTorch."""

from nbt.settings.declaration import SETTINGS, Setting
from nbt.settings.repair import repair
from nbt.settings.rule import FieldRule
from nbt.settings.technique import TECHNIQUES, Technique, register, unregister
from nbt.settings.transfer import (
    AUGMENTATIONS,
    CLASS_WEIGHTS,
    CURVATURES,
    FEATURE_NORMS,
    INITS,
    LAYER_LR_KNOTS,
    METHODS,
    OPTIMIZERS,
    PRETRAIN_SCHEMES,
    ZAP_SCALES,
    SourceSettings,
    StreamSettings,
    TransferSettings,
)

__all__ = [
    "AUGMENTATIONS",
    "CLASS_WEIGHTS",
    "CURVATURES",
    "FEATURE_NORMS",
    "INITS",
    "LAYER_LR_KNOTS",
    "METHODS",
    "OPTIMIZERS",
    "PRETRAIN_SCHEMES",
    "SETTINGS",
    "TECHNIQUES",
    "ZAP_SCALES",
    "FieldRule",
    "Setting",
    "SourceSettings",
    "StreamSettings",
    "Technique",
    "TransferSettings",
    "register",
    "repair",
    "unregister",
]
