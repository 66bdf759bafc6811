"""Heuristic: one rule that suggests settings for a target, and what it suggests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbt.search.target import Target
from nbt.settings import TransferSettings

Score = Callable[[TransferSettings], float]


@dataclass(frozen=True)
class Proposal:
    """What a heuristic suggests for a target.

    Attributes:
        words: A clause for the report, e.g. "transfer at least 74 % of the units".
        score: Log density of settings, up to a constant.
    """

    words: str
    score: Score


@dataclass(frozen=True, kw_only=True)
class Heuristic:
    """One rule.

    Attributes:
        name: What reports call it.
        source: Where it is from.
        dimensions: The settings that it speaks of.
        needs: Measures of the profile, or facts, without which it does not fire.
        strength: See `nbt.search.heuristics`.
        propose: Returns what it suggests, None where the target gives it no reason to.
    """

    name: str
    source: str
    dimensions: tuple[str, ...]
    needs: tuple[str, ...]
    strength: float
    propose: Callable[[Target], Proposal | None]


def bump(value: float, centre: float, width: float) -> float:
    """Returns the log density of a normal distribution, up to a constant, at most 9 below its mode."""
    return -min(0.5 * ((value - centre) / width) ** 2, 9.0)
