"""Amounts of a budget: a number of trials, or a time."""

from __future__ import annotations

import re
from typing import NamedTuple

from nbt.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_MAX_AMOUNT = 1e9


class Amount(NamedTuple):
    """An amount of a budget.

    Attributes:
        text: The amount in its shortest form, such as "20" or "1.5h".
        trials: Number of trials; None for a time.
        seconds: Time in seconds; None for a number of trials.
    """

    text: str
    trials: int | None = None
    seconds: float | None = None


def parse_amount(text: str | int, option: str, others: str = "") -> Amount:
    """Parses "20" (trials), "90s", "30m", "2h" or "1d".

    Args:
        text: A number of trials, or a time with the unit s, m, h or d.
        option: Name of the option, for messages.
        others: Further values of the option, for messages, such as ", or auto".

    Raises:
        UsageError: The text has another form, or the amount is 0 or exceeds 1e9 trials or seconds.
    """
    normalised = str(text).strip().lower()
    match = None if isinstance(text, bool) else _PATTERN.fullmatch(normalised)
    if match is None:
        problem = f"give a number of trials such as 20, or a time such as 30m or 2h{others}"
        raise UsageError(f"{option} {str(text)!r}: {problem}")
    number, unit = match.groups()
    problem = ""
    if float(number) <= 0:
        problem = "it must be positive: give at least 1 trial, or a time such as 30m"
    elif float(number) * _UNITS.get(unit, 1.0) > _MAX_AMOUNT:
        problem = "it is too large: give at most 1e9 trials or seconds"
    elif "." in number and not unit:
        problem = "the number of trials must be an integer; a time needs a unit, as in 1.5h"
    if problem:
        raise UsageError(f"{option} {str(text)!r}: {problem}")
    if unit:
        return Amount(normalised, seconds=float(number) * _UNITS[unit])
    return Amount(str(int(number)), trials=int(number))
