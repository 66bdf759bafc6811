"""Transfer techniques, one module each, which can be used independently of nbt's training."""

from nbt.models.batch_norm import estimate_statistics
from nbt.transfer.curvature.estimate import curvature_bytes, estimate_curvature
from nbt.transfer.fast import FeatureNorm, scale_head, stalled
from nbt.transfer.injection.weight_injection import InjectionReport, inject, tli_similarity
from nbt.transfer.l2sp import L2SP
from nbt.transfer.layer_lr import ParameterGroup, geometric_shape, parameter_groups, rate_multipliers
from nbt.transfer.linearize import FirstOrder, Linearized, linearize
from nbt.transfer.quadratic_penalty import QuadraticPenalty
from nbt.transfer.transfer_depth import freeze, set_training, set_transferred, units_of
from nbt.transfer.zap import zap

__all__ = [
    "L2SP",
    "FeatureNorm",
    "FirstOrder",
    "InjectionReport",
    "Linearized",
    "ParameterGroup",
    "QuadraticPenalty",
    "curvature_bytes",
    "estimate_curvature",
    "estimate_statistics",
    "freeze",
    "geometric_shape",
    "inject",
    "linearize",
    "parameter_groups",
    "rate_multipliers",
    "scale_head",
    "set_training",
    "set_transferred",
    "stalled",
    "tli_similarity",
    "units_of",
    "zap",
]
