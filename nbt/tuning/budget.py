"""The budget of a search: a number of full-length trials, counted in epochs, or a wall-clock time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbt.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_MAX_AMOUNT = 1e9
OUT_OF_TIME = "time budget used up"
OUT_OF_EPOCHS = "epoch budget used up"


@dataclass(frozen=True)
class Budget:
    """The budget of a study, shared by all its sessions.

    Attributes:
        text: The budget as given by the user: "20", "30m", "2h".
        trials: Number of full-length trials whose epochs may be spent; None for a time budget.
        seconds: Wall-clock time in seconds; None for a budget in trials.
    """

    text: str
    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | int) -> Budget:
        """Parses "20" (number of full-length trials) or "90s", "30m", "2h", "1d" (wall-clock time).

        Args:
            text: A number of trials, or a time with the unit s, m, h or d.

        Raises:
            UsageError: The text has another form, or the amount is 0 or exceeds 1e9 trials or seconds.
        """
        normalised = str(text).strip().lower()
        match = None if isinstance(text, bool) else _PATTERN.fullmatch(normalised)
        if match is None:
            raise _invalid_budget(text, "give a number of trials such as 20, or a time such as 30m or 2h")
        number, unit = match.groups()
        if float(number) <= 0:
            raise _invalid_budget(text, "it must be positive: give at least 1 trial, or a time such as 30m")
        if float(number) * _UNITS.get(unit, 1.0) > _MAX_AMOUNT:
            raise _invalid_budget(text, "it is too large: give at most 1e9 trials or seconds")
        if unit:
            return cls(normalised, seconds=float(number) * _UNITS[unit])
        if "." in number:
            raise _invalid_budget(text, "the number of trials must be an integer; a time needs a unit, as in 1.5h")
        return cls(str(int(number)), trials=int(number))

    def total_epochs(self, length: int) -> int | None:
        """Returns the total number of training epochs for trials of `length` epochs; None for a time budget."""
        return None if self.trials is None else self.trials * length

    def remaining_epochs(self, length: int, *, spent: int, reserved: int) -> int | None:
        """Returns the number of epochs that are neither spent nor reserved, at least 0; None for a time budget.

        Args:
            length: Epochs of a full trial.
            spent: Epochs trained so far by all trials, including pruned and failed ones.
            reserved: Epochs that running trials may still train.
        """
        total = self.total_epochs(length)
        return None if total is None else max(0, total - spent - reserved)


def _invalid_budget(text: object, problem: str) -> UsageError:
    return UsageError(f"budget {str(text)!r}: {problem}")
