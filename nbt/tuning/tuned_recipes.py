"""The tuned default: a recipe that was found on other data sets, for fine-tuning without a search.

`studies/tuned_default.py` found it by a race on the tuning data sets and compared it with the default recipe on data
sets that had no part in the race; `studies/results/tuned_default.md` has the gain. The default recipe, plain
fine-tuning, stays the reference of all comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbt.settings import TransferSettings, repair

TUNED_DEFAULT = "tuned default 1"
"""Name and version of the recipe; another recipe has another version."""

_CHANGES: Mapping[str, Any] = {"frozen_depth": 0.5, "sp_mix": 1.0, "decay_strength": 0.01}


def tuned_default(epochs: int) -> TransferSettings:
    """Returns the settings of the tuned default.

    Args:
        epochs: Length of the training.
    """
    return repair(TransferSettings(epochs=epochs).replace(**_CHANGES))
