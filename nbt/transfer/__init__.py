"""The transfer techniques, one file each, usable alone."""

from nbt.transfer.depth import freeze, set_training, set_transferred, units_of
from nbt.transfer.l2sp import L2SP
from nbt.transfer.layer_lrs import ParameterGroup, geometric_shape, parameter_groups, rate_multipliers

__all__ = [
    "L2SP",
    "ParameterGroup",
    "freeze",
    "geometric_shape",
    "parameter_groups",
    "rate_multipliers",
    "set_training",
    "set_transferred",
    "units_of",
]
