"""A dimension of a search space: one setting, its range and its sampler parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from nbt.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


ParamValue: TypeAlias = float | int | str


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting that the search varies.

    Attributes:
        name: Name of the setting in `TransferSettings`.
        kind: "float", "int" or "categorical".
        low: Smallest value (float and int).
        high: Largest value (float and int).
        log: Whether the sampler draws on the logarithmic scale.
        choices: Values of a categorical dimension.
        neutral: Value that disables the technique, or the default recipe's value.
        knots: Names of the elements of a vector setting; each is a separate parameter with the same range.
        ends: How far the sampler may overshoot below `low` and above `high`, as shares of `high - low`. Overshoots are
            clipped to the range, so that an end with a special meaning ("all units", "no mixup") has a positive
            probability.
        share_of: Another dimension of shares, of which the sampler's parameter is a share: the setting is the product.
            So `frozen_depth` can be varied as a share of what is transferred. "" for none.
        description: One sentence for users; by default the text of the setting.
    """

    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[ParamValue, ...] = ()
    neutral: ParamValue
    knots: tuple[str, ...] = ()
    ends: tuple[float, float] = (0.0, 0.0)
    share_of: str = ""
    description: str = ""

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the sampler's parameters: the dimension's name, or one name per knot."""
        return tuple(f"{self.name}_{knot}" for knot in self.knots) or (self.name,)

    def bounds(self) -> tuple[float, float]:
        """Returns the range from which the sampler draws, including overshoots."""
        return self._bounds

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        assert self.low is not None and self.high is not None
        width = self.high - self.low
        return self.low - self.ends[0] * width, self.high + self.ends[1] * width

    @cached_property
    def log_bounds(self) -> tuple[float, float]:
        """Natural logarithms of `bounds()`."""
        low, high = self.bounds()
        return math.log(low), math.log(high)

    @property
    def span(self) -> float:
        """Width of the range of a number, in decades if it is logarithmic."""
        assert self.low is not None and self.high is not None
        return math.log10(self.high / self.low) if self.log else self.high - self.low

    @cached_property
    def _number_type(self) -> type | None:
        return {"float": float, "int": int}.get(self.kind)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values of the setting between which all others lie, or all choices; all are valid if these are."""
        ends = self.choices or (self.low, self.high)
        return tuple((end,) * len(self.knots) for end in ends) if self.knots else ends

    def value(self, raw: Any) -> ParamValue:
        """Returns the setting's value for a sampler parameter, with overshoots clipped.

        Raises:
            UsageError: The parameter is outside the range or not among the choices.
        """
        if type(raw) is self._number_type and self.low <= raw <= self.high:  # type: ignore[operator]
            return raw  # type: ignore[return-value]
        if self.kind == "categorical":
            if raw not in self.choices:
                raise UsageError(f"{self.name}: {raw!r} is not one of {_format_values(self.choices)}")
            return self.choices[self.choices.index(raw)]
        assert self.low is not None and self.high is not None
        low, high = self.bounds()
        if isinstance(raw, bool) or not hasattr(raw, "__float__") or not low <= float(raw) <= high:
            raise UsageError(f"{self.name}: {raw!r} is outside {low:g} ... {high:g}")
        clipped = min(max(float(raw), self.low), self.high)
        return int(clipped) if self.kind == "int" else clipped

    def parameter(self, value: Any) -> ParamValue:
        """Returns the sampler parameter for a value; the inverse of `value`.

        Raises:
            UsageError: The value is outside the range or not among the choices.
        """
        if self.kind != "categorical" and not self.low <= value <= self.high:
            raise UsageError(f"{self.name}: {value!r} is outside {self.low:g} ... {self.high:g}")
        return self.value(value)

    def interpolate(self, start: ParamValue, end: ParamValue, share: float) -> float:
        """Interpolates between two parameters of a float dimension, on the logarithmic scale if `log` is set.

        Args:
            start: Parameter at share 0.
            end: Parameter at share 1.
            share: Position between the two, 0 ... 1.
        """
        a, b = float(start), float(end)
        return a * (b / a) ** share if self.log else a + (b - a) * share

    def distribution(self) -> BaseDistribution:
        """Returns the Optuna distribution of one parameter."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "categorical":
            return CategoricalDistribution(self.choices)
        low, high = self.bounds()
        if self.kind == "int":
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def describe(self) -> str:
        """Returns the range as text, e.g. "0.001 ... 1 (log)" or "sgd, adamw"."""
        if self.kind == "categorical":
            return _format_values(self.choices)
        return f"{self.low:g} ... {self.high:g}" + (" (log)" if self.log else "")


def _format_values(values: tuple[ParamValue, ...]) -> str:
    return ", ".join(format_value(value) for value in values)


def format_value(value: Any) -> str:
    """Returns a value as text for tables and messages."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
