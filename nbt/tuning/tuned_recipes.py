"""The tuned default: a recipe that was found on other datasets, for fine-tuning without a search.

`studies/tuned_default.py` found it by a race on the tuning datasets and compared it with the default recipe on datasets
that had no part in the race; `studies/results/tuned_default.md` has the gain. The default recipe, plain fine-tuning,
stays the reference of all comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbt.settings import TransferSettings, repair

TUNED_DEFAULT = "tuned default 1"
"""Name and version of the recipe; another recipe has another version."""

TUNED_CHANGES: Mapping[str, Any] = {"frozen_depth": 0.4, "label_smoothing": 0.1, "epochs": 24}
"""Settings that differ from the default recipe. Frozen units halve the cost of an epoch, so that twice the epochs cost
as much as the default recipe."""

_RELATIVE_LENGTH = 2


def tuned_default(epochs: int | None = None) -> TransferSettings:
    """Returns the settings of the tuned default.

    Args:
        epochs: Length of the training, such as that of all trials of a search; that of the recipe when None.
    """
    changes = {**TUNED_CHANGES, **({} if epochs is None else {"epochs": epochs})}
    return repair(TransferSettings().replace(**changes))


def searched_tuned_default(epochs: int, *, equal_lengths: bool) -> TransferSettings:
    """Returns the tuned default as one of the first trials of a search.

    Args:
        epochs: Length of the default recipe.
        equal_lengths: Whether all trials have this length; else the tuned default has its own, relative to it.
    """
    return tuned_default(epochs if equal_lengths else _RELATIVE_LENGTH * epochs)
