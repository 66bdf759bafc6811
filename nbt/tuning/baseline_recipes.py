"""Baseline recipes: the settings that a user would run without a search.

They are the first trials of a search. Results are compared with the first of them, the default recipe.
"""

from __future__ import annotations

from nbt.settings import TransferSettings, repair

DEFAULT_RECIPE = "default recipe"

# Li, Grandvalet, Davoine 2018 (arXiv 1802.01483) use 0.01 as the strength of L2-SP on most of their target tasks.
_L2SP_STRENGTH = 0.01
# Varno et al. 2020 (arXiv 2007.01388) give no length; a tenth of the training is one epoch of ten.
_FAST_STALL = 0.1


def default_recipe(epochs: int) -> TransferSettings:
    """Returns the settings of plain full fine-tuning: the default value of every setting.

    Args:
        epochs: Length of a full trial.
    """
    return repair(TransferSettings(epochs=epochs))


def baseline_recipes(epochs: int) -> list[tuple[str, TransferSettings]]:
    """Returns pairs of name and settings, the default recipe first.

    Args:
        epochs: Length of a full trial.
    """
    default = default_recipe(epochs)
    return [
        (DEFAULT_RECIPE, default),
        ("linear probe", repair(default.replace(frozen_depth=1.0))),
        ("L2-SP", repair(default.replace(sp_mix=1.0, decay_strength=_L2SP_STRENGTH))),
        ("FAST", repair(default.replace(head_scale=0.0, feature_norm="batch", stall=_FAST_STALL))),
    ]
