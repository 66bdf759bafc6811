"""Baseline recipes: the settings that a user would run without a search.

They are the first trials of a search. Results are compared with the first of them, the default recipe.
"""

from __future__ import annotations

from nbt.settings import TransferSettings, repair

DEFAULT_RECIPE = "default recipe"
FROM_SCRATCH = "training from scratch"

# Li, Grandvalet, Davoine 2018 (arXiv 1802.01483) use 0.01 as the strength of L2-SP on most of their target tasks.
_L2SP_STRENGTH = 0.01
# Random weights train best at several times the rates that suit pretrained ones. In `studies/injection.py`, Kaiming's
# weights of both networks with BatchNorm chose this rate on both datasets; a third of it and three times it were worse.
_FROM_SCRATCH_RATE = 0.03
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


def from_scratch_recipe(epochs: int) -> TransferSettings:
    """Returns the settings of a training from random weights, with rates that suit them.

    Args:
        epochs: Length of a full trial.
    """
    rate = _FROM_SCRATCH_RATE
    return repair(default_recipe(epochs).replace(transfer_depth=0.0, body_lr=rate, head_lr=rate))


def is_from_scratch(settings: TransferSettings) -> bool:
    """Returns whether repaired settings transfer nothing, whatever the weights of the task are."""
    return settings.transfer_depth == 0.0
