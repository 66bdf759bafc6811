"""Statements on settings: the density of a prior, the test whether settings follow it, and its text are made from them.

A statement says which values of a quantity are good. Its text shows the limits that `holds` compares with, rounded as
shown, so that a printed statement of which `holds` is true is true of the printed settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nbt.settings import TransferSettings

# Settings that are far from the values of a statement are equally bad.
_MAX_LOSS = 9.0


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A value that follows from settings.

    Attributes:
        label: Name in texts; the name of the setting if the quantity is a setting.
        value: Function of the settings; it returns None where the quantity has no effect on training.
        log: Whether distances are differences of log10.
        low: Smallest possible value.
        high: Greatest possible value.
    """

    label: str
    value: Callable[[TransferSettings], Any]
    log: bool = False
    low: float = -math.inf
    high: float = math.inf


def setting(name: str, *, low: float = -math.inf, high: float = math.inf, log: bool = False) -> Quantity:
    """Returns a setting as a quantity; the other arguments are those of `Quantity`."""
    return Quantity(label=name, value=lambda settings: settings.value(name), low=low, high=high, log=log)


class Statement(Protocol):
    """A statement on settings."""

    @property
    def text(self) -> str:
        """The statement as a clause, e.g. "frozen_depth is at least 0.3"."""

    def holds(self, settings: TransferSettings) -> bool:
        """Returns whether the statement is true of settings; false where the quantity has no effect."""

    def value_text(self, settings: TransferSettings) -> str:
        """Returns the value that the settings have."""

    def log_density(self, settings: TransferSettings) -> float:
        """Returns the log density of settings, up to a constant; the greatest value is 0."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The statement that a numeric quantity lies in a range; created with `near`, `between`, `at_least` and `at_most`.

    The density is 0 between `best_low` and `best_high`, and outside it that of a normal distribution with the standard
    deviation `width`. Where the quantity has no effect, it is that at a distance of one standard deviation.

    Attributes:
        quantity: The quantity.
        low: Smallest value of which the statement is true.
        high: Greatest value of which the statement is true.
        best_low: Smallest value with the greatest density.
        best_high: Greatest value with the greatest density.
        width: Standard deviation, in decades if the quantity is logarithmic.
        weight: Factor on the log density.
    """

    quantity: Quantity
    low: float
    high: float
    best_low: float
    best_high: float
    width: float
    weight: float = 1.0

    @property
    def text(self) -> str:
        """The statement as a clause."""
        label = self.quantity.label
        if self.best_low == self.best_high:
            return f"{label} is about {self.best_low:g} ({self.low:g} to {self.high:g})"
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{label} is {self.low:g} to {self.high:g}"
        return f"{label} is at least {self.low:g}" if math.isfinite(self.low) else f"{label} is at most {self.high:g}"

    def holds(self, settings: TransferSettings) -> bool:
        """Returns whether the statement is true of settings."""
        value = self.quantity.value(settings)
        return value is not None and bool(self.low <= value <= self.high)

    def value_text(self, settings: TransferSettings) -> str:
        """Returns the value that the settings have."""
        value = self.quantity.value(settings)
        return "without effect" if value is None else f"{value:.3g}"

    def log_density(self, settings: TransferSettings) -> float:
        """Returns the log density of settings, at most 0."""
        value = self.quantity.value(settings)
        if value is None:
            return -0.5 * self.weight
        if self.best_low <= value <= self.best_high:
            return 0.0
        bound = self.best_low if value < self.best_low else self.best_high
        gap = math.log10(max(value, 1e-12) / bound) if self.quantity.log else value - bound
        return -self.weight * min(0.5 * (gap / self.width) ** 2, _MAX_LOSS)


def near(quantity: Quantity, centre: float, width: float) -> Range:
    """Returns the statement that a quantity is at most one standard deviation from a value.

    Args:
        quantity: The quantity.
        centre: The value with the greatest density.
        width: Standard deviation, in decades if the quantity is logarithmic.
    """
    low, high = (centre / 10**width, centre * 10**width) if quantity.log else (centre - width, centre + width)
    return Range(
        quantity=quantity,
        low=_shown(max(low, quantity.low)),
        high=_shown(min(high, quantity.high)),
        best_low=_shown(centre),
        best_high=_shown(centre),
        width=width,
    )


def between(quantity: Quantity, low: float, high: float, width: float) -> Range:
    """Returns the statement that a quantity is `low` to `high`; the other arguments are those of `Range`."""
    low, high = _shown(low), _shown(high)
    return Range(quantity=quantity, low=low, high=high, best_low=low, best_high=high, width=width)


def at_least(quantity: Quantity, low: float, width: float, weight: float = 1.0) -> Range:
    """Returns the statement that a quantity is `low` or more; the other arguments are those of `Range`."""
    low = _shown(low)
    return Range(
        quantity=quantity, low=low, high=math.inf, best_low=low, best_high=math.inf, width=width, weight=weight
    )


def at_most(quantity: Quantity, high: float, width: float, weight: float = 1.0) -> Range:
    """Returns the statement that a quantity is `high` or less; the other arguments are those of `Range`."""
    high = _shown(high)
    return Range(
        quantity=quantity, low=-math.inf, high=high, best_low=-math.inf, best_high=high, width=width, weight=weight
    )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The statement that a quantity has one of some values.

    Attributes:
        quantity: The quantity.
        preferred: The values, each with its loss of log density, 0 for the best.
        other: Loss of log density of all other values.
    """

    quantity: Quantity
    preferred: Mapping[Any, float]
    other: float

    @property
    def text(self) -> str:
        """The statement as a clause."""
        return f"{self.quantity.label} is {' or '.join(map(_choice_text, self.preferred))}"

    def holds(self, settings: TransferSettings) -> bool:
        """Returns whether the statement is true of settings."""
        return self.quantity.value(settings) in self.preferred

    def value_text(self, settings: TransferSettings) -> str:
        """Returns the value that the settings have."""
        return _choice_text(self.quantity.value(settings))

    def log_density(self, settings: TransferSettings) -> float:
        """Returns the log density of settings, at most 0."""
        return -self.preferred.get(self.quantity.value(settings), self.other)


@dataclass(frozen=True)
class Either:
    """The statement that at least one of two statements is true; its density is the greater one."""

    first: Statement
    second: Statement

    @property
    def text(self) -> str:
        """The statement as a clause."""
        return f"{self.first.text} or {self.second.text}"

    def holds(self, settings: TransferSettings) -> bool:
        """Returns whether the statement is true of settings."""
        return self.first.holds(settings) or self.second.holds(settings)

    def value_text(self, settings: TransferSettings) -> str:
        """Returns the value that the settings have."""
        return f"{self.first.value_text(settings)} and {self.second.value_text(settings)}"

    def log_density(self, settings: TransferSettings) -> float:
        """Returns the log density of settings, at most 0."""
        return max(self.first.log_density(settings), self.second.log_density(settings))


def _shown(value: float) -> float:
    """Returns a limit as its text shows it."""
    return float(f"{value:.2g}")


def _choice_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"
