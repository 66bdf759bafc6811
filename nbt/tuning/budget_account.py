"""The account of a budget: epochs and seconds spent, epochs reserved for running trials, and time for the finals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME, Budget

# Share of a budget in time by which a trial that is almost at its end may delay the finals.
_GRACE = 0.05


class BudgetAccount:
    """Decides whether the remaining budget of a study suffices to start or to continue a trial.

    The epochs spent never exceed a budget in trials; a remainder of less than one trial stays unspent. Of a budget in
    time, what the finals, the last training and the report need is kept back, and a trial starts only if there is time
    for the median of the full trials so far.

    Args:
        budget: Budget of all sessions of the study together.
        trial_epochs: Epochs of a full trial.
        spent_epochs: Epochs trained by earlier sessions.
        full_trials: Durations of the full trials of earlier sessions in seconds.
        elapsed: Returns the seconds of all sessions and phases so far.
        closing_seconds: Returns the seconds that everything after the trials takes, from the epochs of the trials; None
            if a budget in time is for the trials alone.

    Attributes:
        spent_epochs: Number of epochs trained so far in all sessions.
    """

    def __init__(
        self,
        budget: Budget,
        trial_epochs: int,
        *,
        spent_epochs: int,
        full_trials: Sequence[float],
        elapsed: Callable[[], float],
        closing_seconds: Callable[[int], float] | None = None,
    ) -> None:
        self._budget, self._trial_epochs, self._elapsed = budget, trial_epochs, elapsed
        self._closing_seconds = closing_seconds
        self.spent_epochs = spent_epochs
        self._full_trials = list(full_trials)
        self._reserved: dict[str, int] = {}
        self._expected_seconds: dict[str, float] = {}  # of the remaining epochs of running trials

    @property
    def epochs_left(self) -> int | None:
        """Epochs that are neither spent nor reserved; None for a budget in time."""
        reserved = sum(self._reserved.values())
        return self._budget.remaining_epochs(self._trial_epochs, spent=self.spent_epochs, reserved=reserved)

    def can_start(self, required_epochs: int) -> bool:
        """Returns whether the budget suffices for a trial that needs the given number of epochs."""
        if self._budget.seconds is not None:
            left = self._seconds_left(self.spent_epochs + sum(self._reserved.values()) + required_epochs)
            return left > 0 and left >= median(self._full_trials or [0.0])
        remaining = self.epochs_left
        return remaining is not None and remaining >= required_epochs

    def reserve(self, key: str, epochs: int) -> None:
        """Reserves epochs for the trial with the given key."""
        self._reserved[key] = epochs

    def count_epoch(self, key: str, remaining: int, seconds: float = 0.0, *, repeated: bool = False) -> None:
        """Counts an epoch of a trial and reserves the remaining ones, as far as the budget suffices.

        Args:
            key: Key of the trial.
            remaining: Remaining epochs of the trial.
            seconds: Expected duration of one of them.
            repeated: Whether the epoch was counted before the trial was interrupted.
        """
        self.spent_epochs += not repeated
        self.release(key)
        available = self.epochs_left
        self.reserve(key, remaining if available is None else min(remaining, available))
        self._expected_seconds[key] = remaining * seconds

    def release(self, key: str) -> None:
        """Ends the reservation of a trial."""
        self._reserved.pop(key, None)

    def stop_reason(self, key: str) -> str | None:
        """Returns the reason to stop a running trial because the budget is used up or will be, else None."""
        if self._budget.seconds is not None:
            grace = 0.0 if self._closing_seconds is None else _GRACE * self._budget.seconds
            left = self._seconds_left(self.spent_epochs) + grace
            return OUT_OF_TIME if left <= 0 or left < self._expected_seconds.get(key, 0.0) else None
        return OUT_OF_EPOCHS if self._reserved[key] <= 0 else None

    def note_trial(self, seconds: float) -> None:
        """Notes the duration of a full trial, or what one that was stopped for lack of time would have taken."""
        self._full_trials.append(seconds)

    def _seconds_left(self, epochs: int) -> float:
        """Returns the time left for trials of so many epochs in total; negative if it is exceeded."""
        closing = 0.0 if self._closing_seconds is None else self._closing_seconds(epochs)
        return (self._budget.seconds or 0.0) - closing - self._elapsed()
