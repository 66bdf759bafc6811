"""The account of a budget: what trials have cost, what running ones may cost, and the time for the finals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME, Budget

# Share of a budget in time by which a trial that is almost at its end may delay the finals.
_GRACE = 0.05
_ROUNDING = 1e-6


class BudgetAccount:
    """Decides whether the remaining budget of a study suffices to start or to continue a trial.

    The unit is an epoch of the default recipe; the cost of other epochs is estimated without a clock, see
    `nbt.tuning.relative_cost`. What is spent never exceeds a budget in trials; a small remainder stays unspent. Of a
    budget in time, what the finals, the last training and the report need is kept back, and a trial starts only if
    there is time for the median of the full trials so far.

    Args:
        budget: Budget of all sessions of the study together.
        trial_epochs: Epochs of a full trial.
        spent: Cost of the epochs of earlier sessions.
        full_trials: Durations of the full trials of earlier sessions in seconds.
        elapsed: Returns the seconds of all sessions and phases so far.
        closing_seconds: Returns the seconds that everything after the trials takes, from the cost of the trials; None
            if a budget in time is for the trials alone.

    Attributes:
        spent: Cost of the epochs so far in all sessions.
    """

    def __init__(
        self,
        budget: Budget,
        trial_epochs: int,
        *,
        spent: float,
        full_trials: Sequence[float],
        elapsed: Callable[[], float],
        closing_seconds: Callable[[float], float] | None = None,
    ) -> None:
        self._budget, self._trial_epochs, self._elapsed = budget, trial_epochs, elapsed
        self._closing_seconds = closing_seconds
        self.spent = spent
        self._full_trials = list(full_trials)
        self._reserved: dict[str, float] = {}
        self._next_epoch: dict[str, float] = {}  # cost of the next epoch of running trials
        self._expected_seconds: dict[str, float] = {}  # of the remaining epochs of running trials

    @property
    def left(self) -> float | None:
        """Cost that is neither spent nor reserved; None for a budget in time."""
        reserved = sum(self._reserved.values())
        return self._budget.remaining_epochs(self._trial_epochs, spent=self.spent, reserved=reserved)

    def can_start(self, cost: float) -> bool:
        """Returns whether the budget suffices for a trial of the given cost."""
        if self._budget.seconds is not None:
            left = self._seconds_left(self.spent + sum(self._reserved.values()) + cost)
            return left > 0 and left >= median(self._full_trials or [0.0])
        remaining = self.left
        return remaining is not None and remaining + _ROUNDING >= cost

    def reserve(self, key: str, cost: float) -> None:
        """Reserves the cost of a trial with the given key."""
        self._reserved[key] = cost

    def count_epoch(
        self, key: str, remaining: int, *, cost: float = 1.0, seconds: float = 0.0, repeated: bool = False
    ) -> None:
        """Counts an epoch of a trial and reserves the remaining ones, as far as the budget suffices.

        Args:
            key: Key of the trial.
            remaining: Number of remaining epochs of the trial.
            cost: Cost of each of its epochs.
            seconds: Expected duration of one of them.
            repeated: Whether the epoch was counted before the trial was interrupted.
        """
        self.spent += 0.0 if repeated else cost
        self.release(key)
        available = self.left
        self.reserve(key, remaining * cost if available is None else min(remaining * cost, available))
        self._next_epoch[key] = cost
        self._expected_seconds[key] = remaining * seconds

    def release(self, key: str) -> None:
        """Ends the reservation of a trial."""
        self._reserved.pop(key, None)

    def stop_reason(self, key: str) -> str | None:
        """Returns the reason to stop a running trial because the budget is used up or will be, else None."""
        if self._budget.seconds is not None:
            grace = 0.0 if self._closing_seconds is None else _GRACE * self._budget.seconds
            left = self._seconds_left(self.spent) + grace
            return OUT_OF_TIME if left <= 0 or left < self._expected_seconds.get(key, 0.0) else None
        return OUT_OF_EPOCHS if self._reserved[key] + _ROUNDING < self._next_epoch[key] else None

    def note_trial(self, seconds: float) -> None:
        """Notes the duration of a full trial, or what one that was stopped for lack of time would have taken."""
        self._full_trials.append(seconds)

    def _seconds_left(self, cost: float) -> float:
        """Returns the time left for trials of this cost in total; negative if it is exceeded."""
        closing = 0.0 if self._closing_seconds is None else self._closing_seconds(cost)
        return (self._budget.seconds or 0.0) - closing - self._elapsed()
