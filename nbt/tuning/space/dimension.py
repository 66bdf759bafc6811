"""One dimension of a search space: the setting that is varied, its range, and its sampler parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from nbt.errors import UsageError
from nbt.settings import setting_rule

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


ParamValue: TypeAlias = float | int | str


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting that the search varies.

    Attributes:
        name: Name of the setting in `TransferSettings`.
        kind: "float", "int" or "categorical".
        low: Least value (float and int).
        high: Greatest value (float and int).
        log: Whether the sampler works on the logarithm of the value.
        choices: The values of a categorical dimension.
        neutral: The value that means "without this technique", or the default recipe's.
        knots: Names of the numbers of a vector setting; each is a parameter of its own with the same range.
        ends: By how much, as a share of `high - low`, the sampler may overshoot below `low` and above `high`. An
            overshoot is cut, so that an end that means something of its own ("all units", "no mixup"), and that a
            continuous draw would never hit, is drawn with a positive probability.
        description: One sentence.
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
    description: str = ""

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """What the sampler calls it: its name, or one name a knot."""
        return tuple(f"{self.name}_{knot}" for knot in self.knots) or (self.name,)

    def bounds(self) -> tuple[float, float]:
        """Returns the range that the sampler draws from, overshoots included."""
        return self._bounds

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        assert self.low is not None and self.high is not None
        width = self.high - self.low
        return self.low - self.ends[0] * width, self.high + self.ends[1] * width

    @cached_property
    def log_bounds(self) -> tuple[float, float]:
        """Natural logarithms of `bounds`."""
        low, high = self.bounds()
        return math.log(low), math.log(high)

    def value(self, raw: Any) -> ParamValue:
        """Returns the value that a parameter stands for.

        Raises:
            UsageError: The parameter is not one that the sampler could have drawn.
        """
        if type(raw) is float and self.kind == "float" and self.low <= raw <= self.high:  # type: ignore[operator]
            return raw
        if self.kind == "categorical":
            if raw not in self.choices:
                raise UsageError(f"{self.name}: {raw!r} is not one of {_format_values(self.choices)}")
            return self.choices[self.choices.index(raw)]
        assert self.low is not None and self.high is not None
        low, high = self.bounds()
        if isinstance(raw, bool) or not hasattr(raw, "__float__") or not low <= float(raw) <= high:
            raise UsageError(f"{self.name}: {raw!r} is outside {low:g} ... {high:g}")
        cut = min(max(float(raw), self.low), self.high)
        return int(cut) if self.kind == "int" else cut

    def parameter(self, value: Any) -> ParamValue:
        """Returns the parameter that stands for a value; the reverse of `value`.

        Raises:
            UsageError: The dimension cannot take the value.
        """
        if self.kind != "categorical" and not self.low <= value <= self.high:
            raise UsageError(f"{self.name}: {value!r} is outside {self.low:g} ... {self.high:g}")
        return self.value(value)

    def interpolate(self, start: ParamValue, end: ParamValue, share: float) -> float:
        """Returns the parameter that lies a share of the way from one to another; of a float dimension."""
        a, b = float(start), float(end)
        return a * (b / a) ** share if self.log else a + (b - a) * share

    def distribution(self) -> BaseDistribution:
        """Returns optuna's distribution of one parameter."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "categorical":
            return CategoricalDistribution(self.choices)
        low, high = self.bounds()
        if self.kind == "int":
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def describe(self) -> str:
        """Returns the range in words, e.g. "0.001 ... 1 (log)" or "sgd, adamw"."""
        if self.kind == "categorical":
            return _format_values(self.choices)
        return f"{self.low:g} ... {self.high:g}" + (" (log)" if self.log else "")


def is_vector_setting(name: str) -> bool:
    """Returns whether a setting is a list of numbers, one a knot."""
    return setting_rule(name).length > 0


def _format_values(values: tuple[ParamValue, ...]) -> str:
    return ", ".join(_format_value(value) for value in values)


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
