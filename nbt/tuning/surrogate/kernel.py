"""The default kernel of the surrogate models on encoded settings."""

from __future__ import annotations

from nbt.tuning.space.encoding import BASE_COORDINATES, coordinate_names
from nbt.tuning.surrogate.gaussian_process import Kernel


def default_kernel() -> Kernel:
    """Returns the prior mode of the kernel on points of `nbt.tuning.space.encoding.encode`.

    The length scales depend only on the number of coordinates of ordinary fine-tuning, which every recorded task
    varies. Most settings use no optional technique, and a new technique must not change the models of the others.
    """
    return Kernel.default(len(coordinate_names()), num_varied=len(BASE_COORDINATES))
