"""The kernel that the surrogates use on encoded settings, before any trial has been seen."""

from __future__ import annotations

from nbt.tuning.space.encoding import _BASE_COORDINATES, COORDINATE_NAMES
from nbt.tuning.surrogate.gaussian_process import Kernel


def default_kernel() -> Kernel:
    """Returns the kernel that is expected of `encode`d points.

    It is made for the coordinates of ordinary fine-tuning, which every recorded task varies: the techniques are off in
    most recipes, and a new one does not change what is thought of the others.
    """
    return Kernel.prior(len(COORDINATE_NAMES), varied=len(_BASE_COORDINATES))
