"""Rules of settings: the values that a field accepts."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nbt.errors import UsageError


@dataclass(frozen=True)
class FieldRule:
    """The values that a field accepts.

    Attributes:
        low: Smallest number.
        high: Largest number.
        above: Number that a value must exceed.
        choices: Texts to choose from.
        integer: Whether numbers are whole.
        length: Number of items of a tuple of numbers; 0 for a single value.
        text: Whether the value is one line of text.
        flag: Whether the value is true or false.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float | None = None
    choices: tuple[str, ...] = ()
    integer: bool = False
    length: int = 0
    text: bool = False
    flag: bool = False

    def fits(self, value: Any) -> bool:
        """Returns whether `value` is valid and of canonical type, so that `check` returns it unchanged; fast."""
        kind = type(value)
        if kind is self._number_type:
            return self._in_range(value)
        if kind is tuple:
            return len(value) == self.length and all(type(item) is float and self._in_range(item) for item in value)
        if kind is str:
            return value in self.choices or (self.text and "\n" not in value)
        return kind is bool and self.flag

    @cached_property
    def _number_type(self) -> type | None:
        """Type of a canonical number; None if values are not single numbers."""
        return None if self.choices or self.text or self.flag or self.length else int if self.integer else float

    @cached_property
    def _item_rule(self) -> FieldRule:
        return dataclasses.replace(self, length=0)

    def _in_range(self, number: float) -> bool:
        above = self.above is None or number > self.above
        return above and self.low <= number <= self.high and -math.inf < number < math.inf

    def check(self, name: str, value: Any) -> Any:
        """Returns `value` in its canonical type.

        Raises:
            UsageError: The value has the wrong type, is not finite or is out of range; the message names the field and
                the rule.
        """
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                raise UsageError(f"{name}: {value!r} is not one of {', '.join(self.choices)}")
            return value
        if self.text:
            if not isinstance(value, str) or "\n" in value:
                raise UsageError(f"{name}: expected one line of text, got {value!r}")
            return value
        if self.flag:
            # Rows of pandas tables hold NumPy booleans.
            value = value.item() if type(value).__name__ == "bool" and hasattr(value, "item") else value
            if not isinstance(value, bool):
                raise UsageError(f"{name}: expected true or false, got {value!r}")
            return value
        if self.length:
            if not isinstance(value, list | tuple) or len(value) != self.length:
                raise UsageError(f"{name}: expected a list of {self.length} numbers, got {value!r}")
            rule = self._item_rule
            return tuple([item if rule.fits(item) else rule.check(name, item) for item in value])
        return self._check_number(name, value)

    def _check_number(self, name: str, value: Any) -> float | int:
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise UsageError(f"{name}: expected a number, got {value!r}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise UsageError(f"{name}: {reprlib.repr(value)} is not finite")
        if self.integer and number != int(number):
            raise UsageError(f"{name}: expected a whole number, got {value!r}")
        if not self._in_range(number):
            raise UsageError(f"{name}: {value!r} is outside {self.describe()}")
        return int(number) if self.integer else number

    def describe(self) -> str:
        """Returns the rule as text, such as "0 ... 1" or "above 0"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.text:
            return "one line of text"
        if self.flag:
            return "true or false"
        if self.above is not None:
            return f"above {self.above:g}" + (f", up to {self.high:g}" if math.isfinite(self.high) else "")
        if math.isfinite(self.high):
            return f"{self.low:g} ... {self.high:g}"
        return f"{self.low:g} or more"
