"""Budget: how much a search may spend, in full-length trials' worth of epochs or in wall-clock time. Pure logic."""

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
    """What a study may spend in all its sessions together.

    Attributes:
        text: As the user wrote it: "20", "30m", "2h".
        trials: Number of full-length trials whose epochs may be spent; None for a budget in time.
        seconds: Wall-clock seconds; None for a budget in trials.
    """

    text: str
    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | int) -> Budget:
        """Reads "20" (full-length trials' worth of epochs) or "90s", "30m", "2h", "1d" (wall-clock).

        Raises:
            UsageError: It is none of these, or nothing: 0.
        """
        written = str(text).strip().lower()
        match = None if isinstance(text, bool) else _PATTERN.fullmatch(written)
        if match is None:
            raise _invalid_budget(text, "write a number of trials, as 20, or a time, as 30m or 2h")
        number, unit = match.groups()
        if float(number) <= 0:
            raise _invalid_budget(text, "it allows nothing: give at least 1 trial, or a time such as 30m")
        if float(number) * _UNITS.get(unit, 1.0) > _MAX_AMOUNT:
            raise _invalid_budget(text, "it is beyond any use: give fewer")
        if unit:
            return cls(written, seconds=float(number) * _UNITS[unit])
        if "." in number:
            raise _invalid_budget(text, "trials are whole; a time needs a unit, as 1.5h")
        return cls(str(int(number)), trials=int(number))

    def total_epochs(self, length: int) -> int | None:
        """Returns the training epochs that trials of `length` epochs may spend together; None for a time."""
        return None if self.trials is None else self.trials * length

    def remaining_epochs(self, length: int, *, spent: int, reserved: int) -> int | None:
        """Returns how many epochs are neither spent nor reserved, 0 or more; None for a budget in time.

        Args:
            length: Epochs of a full trial.
            spent: Epochs trained so far, by all trials, whatever became of them.
            reserved: Epochs that running trials may still train.
        """
        total = self.total_epochs(length)
        return None if total is None else max(0, total - spent - reserved)

    def can_start(
        self,
        length: int,
        *,
        spent: int,
        reserved: int,
        seconds: float,
        needs: int | None = None,
        min_trial_seconds: float = 0.0,
    ) -> bool:
        """Returns whether a new trial may start: only if it can run to its end beside what is running.

        What is left under one trial stays unspent; the total is never passed.

        Args:
            length: Epochs of a full trial.
            spent: Epochs trained so far.
            reserved: Epochs that running trials may still train.
            seconds: Wall-clock seconds spent so far.
            needs: Epochs that this trial needs, where it continues a checkpoint; None for a full trial.
            min_trial_seconds: Seconds that the min_trial_seconds full trial took, 0 if there is none: with less time left than
                this, a trial would only be stopped.
        """
        if self.seconds is not None:
            remaining_seconds = self.seconds - seconds
            return remaining_seconds > 0 and remaining_seconds >= min_trial_seconds
        left = self.remaining_epochs(length, spent=spent, reserved=reserved)
        return left is not None and left >= (length if needs is None else needs)

    def stop_reason(self, seconds: float) -> str | None:
        """Returns why running trials have to stop now, or None: a budget in time is used up."""
        return OUT_OF_TIME if self.seconds is not None and seconds >= self.seconds else None


def _invalid_budget(text: object, why: str) -> UsageError:
    return UsageError(f"budget {str(text)!r}: {why}")
