"""The curvature of a loss around a model's weights: exact, diagonal or K-FAC."""

from nbt.transfer.curvature.estimate import (
    MAX_BYTES,
    check_curvature,
    curvature_bytes,
    estimate_curvature,
    load_curvature,
)
from nbt.transfer.curvature.matrices import Curvature, DiagonalCurvature, ExactCurvature

__all__ = [
    "MAX_BYTES",
    "Curvature",
    "DiagonalCurvature",
    "ExactCurvature",
    "check_curvature",
    "curvature_bytes",
    "estimate_curvature",
    "load_curvature",
]
