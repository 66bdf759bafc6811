"""Prior: one rule that suggests settings for a target, and what it suggests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbt.settings import TransferSettings
from nbt.tuning.target import Target

LogDensity = Callable[[TransferSettings], float]


@dataclass(frozen=True)
class PriorSuggestion:
    """What a heuristic suggests for a target.

    Attributes:
        words: A clause for the report, e.g. "transfer at least 74 % of the units".
        log_density: Log density of settings, up to a constant.
    """

    words: str
    log_density: LogDensity


@dataclass(frozen=True, kw_only=True)
class Prior:
    """One rule.

    Attributes:
        name: What reports call it.
        source: Where it is from.
        dimensions: The settings that it speaks of.
        needs: Measures of the profile, or facts, without which it does not fire.
        strength: See `nbt.tuning.priors.profile_priors`.
        suggest: Returns what it suggests, None where the target gives it no reason to.
    """

    name: str
    source: str
    dimensions: tuple[str, ...]
    needs: tuple[str, ...]
    strength: float
    suggest: Callable[[Target], PriorSuggestion | None]


def gaussian_log_density(value: float, centre: float, width: float) -> float:
    """Returns the log density of a normal distribution, up to a constant, at most 9 below its mode."""
    return -min(0.5 * ((value - centre) / width) ** 2, 9.0)
