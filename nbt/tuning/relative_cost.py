"""The cost of a training relative to that of the default recipe, estimated from its settings without a clock."""

from __future__ import annotations

from nbt.settings import TransferSettings

# Cost of an epoch with all units frozen relative to the default recipe; it is that of computing the frozen features of
# each view once, spread over the epochs of a trial (0.21 in a linear probe on digits).
_FROZEN_COST = 0.2


def relative_cost(settings: TransferSettings) -> float:
    """Returns the estimated cost of an epoch relative to the default recipe, which trains all units, 0 ... 1."""
    return _FROZEN_COST + (1.0 - _FROZEN_COST) * (1.0 - settings.frozen_depth)
