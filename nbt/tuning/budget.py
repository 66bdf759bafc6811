"""The budget of a search: the cost of so many baseline trials, a wall-clock time, or while trials are worth it."""

from __future__ import annotations

from dataclasses import dataclass

from nbt.amounts import parse_amount
from nbt.errors import UsageError
from nbt.option import AUTO, AUTO_BUDGET, OTHER_BUDGETS, is_auto_budget

DEFAULT_MAX_BUDGET, DEFAULT_MIN_GAIN = "100", 0.1
OUT_OF_TIME = "time budget used up"
OUT_OF_EPOCHS = "epoch budget used up"
MIN_PROPOSAL = 0.5
"""Remaining budget, in baseline trials, below which no further settings are proposed: few of them would fit."""


@dataclass(frozen=True)
class Budget:
    """The budget of a study, shared by all its sessions.

    Attributes:
        text: The budget as given by the user: "20", "30m", "2h"; "auto, at most 100" with a minimum gain.
        trials: Number of trials of the default recipe whose cost may be spent; None for a time budget.
        seconds: Wall-clock time in seconds; None for a budget in trials.
        min_gain: Expected gain in points of the metric's score below which no further trial starts; None for none.
    """

    text: str
    trials: int | None = None
    seconds: float | None = None
    min_gain: float | None = None

    @classmethod
    def parse(
        cls, text: str | int, *, max_budget: str | int = DEFAULT_MAX_BUDGET, min_gain: float = DEFAULT_MIN_GAIN
    ) -> Budget:
        """Parses "20" (number of baseline trials), "90s", "30m", "2h", "1d" (wall-clock time) or "auto".

        Args:
            text: A number of trials, or a time with the unit s, m, h or d, or "auto"; or the `text` of a budget.
            max_budget: With "auto": the limit, a number of trials or a time.
            min_gain: With "auto": the expected gain below which no further trial starts, in points.

        Raises:
            UsageError: The text has another form, or the amount is 0 or exceeds 1e9 trials or seconds.
        """
        if is_auto_budget(text):
            if not min_gain > 0:
                raise UsageError(f"minimum gain {min_gain:g}: give points above 0, such as 0.1")
            normalised = str(text).strip().lower()
            limit = parse_amount(max_budget if normalised == AUTO else normalised[len(AUTO_BUDGET) :], "--max-budget")
            return cls(AUTO_BUDGET + limit.text, limit.trials, limit.seconds, min_gain)
        return cls(*parse_amount(text, "--budget", OTHER_BUDGETS))

    @property
    def option(self) -> str:
        """The budget as an option: "auto" without its limit, which is an option of its own."""
        return self.text if self.min_gain is None else AUTO

    def total_epochs(self, length: int) -> int | None:
        """Returns the budget in epochs of the default recipe, for trials of `length` epochs; None for a time budget."""
        return None if self.trials is None else self.trials * length

    def remaining_epochs(self, length: int, *, spent: float, reserved: float) -> float | None:
        """Returns what is neither spent nor reserved, in epochs of the default recipe, at least 0.

        Args:
            length: Epochs of a full trial.
            spent: Cost of the epochs trained so far by all trials, including pruned and failed ones.
            reserved: Cost of the epochs that running trials may still train.

        Returns:
            The remaining cost; None for a time budget.
        """
        total = self.total_epochs(length)
        return None if total is None else max(0, total - spent - reserved)
