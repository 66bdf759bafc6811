"""Types of a prior, which is a rule that suggests settings for a target, and of its suggestion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbt.settings import TransferSettings
from nbt.tuning.target import Target

LogDensity = Callable[[TransferSettings], float]


@dataclass(frozen=True)
class PriorSuggestion:
    """The suggestion of a prior for a target.

    Attributes:
        words: Clause for the report, e.g. "transfer at least 74 % of the units".
        log_density: Function that returns the log density of settings, up to a constant.
    """

    words: str
    log_density: LogDensity


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A rule that suggests settings for a target.

    Attributes:
        name: Name in reports.
        source: Reference that the rule is based on.
        dimensions: Settings that the rule applies to; it is considered if the search varies any of them.
        needs: Measures of the profile and facts without which the prior is not active.
        strength: Expected weight, in units of the logit score per standard deviation of the log density over random
            settings.
        suggest: Function that returns the suggestion for a target, or None if the target gives no reason for one.
    """

    name: str
    source: str
    dimensions: tuple[str, ...]
    needs: tuple[str, ...]
    strength: float
    suggest: Callable[[Target], PriorSuggestion | None]


def gaussian_log_density(value: float, centre: float, width: float) -> float:
    """Returns the log density of a normal distribution, up to a constant, with a floor of -9.

    Args:
        value: Where to evaluate the density.
        centre: Mean of the distribution.
        width: Standard deviation.
    """
    return -min(0.5 * ((value - centre) / width) ** 2, 9.0)
