"""The account of a budget: epochs and seconds spent, and epochs reserved for running trials."""

from __future__ import annotations

from collections.abc import Callable

from nbt.tuning.budget import OUT_OF_EPOCHS, Budget


class BudgetAccount:
    """Decides whether the remaining budget of a study suffices to start or to continue a trial.

    Args:
        budget: Budget of all sessions of the study together.
        trial_epochs: Epochs of a full trial.
        spent_epochs: Epochs trained by earlier sessions.
        spent_seconds: Wall-clock time of earlier sessions.
        full_trial_seconds: Duration of the fastest full trial of earlier sessions in seconds, 0 if there is none.
        clock: Returns a monotonic time in seconds.

    Attributes:
        spent_epochs: Number of epochs trained so far in all sessions.
    """

    def __init__(
        self,
        budget: Budget,
        trial_epochs: int,
        *,
        spent_epochs: int,
        spent_seconds: float,
        full_trial_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._budget, self._trial_epochs, self._clock = budget, trial_epochs, clock
        self.spent_epochs = spent_epochs
        self._full_trial_seconds = full_trial_seconds
        self._reserved: dict[str, int] = {}
        self._session_start = clock() - spent_seconds

    @property
    def seconds(self) -> float:
        """Wall-clock time of all sessions so far, in seconds."""
        return self._clock() - self._session_start

    def can_start(self, required_epochs: int) -> bool:
        """Returns whether the budget suffices for a trial that needs the given number of epochs."""
        return self._budget.can_start(
            self._trial_epochs,
            spent=self.spent_epochs,
            reserved=sum(self._reserved.values()),
            seconds=self.seconds,
            required_epochs=required_epochs,
            min_trial_seconds=self._full_trial_seconds,
        )

    def reserve(self, key: str, epochs: int) -> None:
        """Reserves epochs for the trial with the given key."""
        self._reserved[key] = epochs

    def count_epoch(self, key: str, remaining: int) -> None:
        """Counts an epoch of a trial and reserves the remaining ones, as far as the budget suffices."""
        self.spent_epochs += 1
        self.release(key)
        available = self._budget.remaining_epochs(
            self._trial_epochs, spent=self.spent_epochs, reserved=sum(self._reserved.values())
        )
        self.reserve(key, remaining if available is None else min(remaining, available))

    def release(self, key: str) -> None:
        """Ends the reservation of a trial."""
        self._reserved.pop(key, None)

    def stop_reason(self, key: str) -> str | None:
        """Returns the reason to stop a running trial because the budget is used up, else None."""
        return self._budget.stop_reason(self.seconds) or (OUT_OF_EPOCHS if self._reserved[key] <= 0 else None)

    def note_full_trial(self, seconds: float) -> None:
        """Notes the duration of a full trial."""
        self._full_trial_seconds = min(self._full_trial_seconds or seconds, seconds)
