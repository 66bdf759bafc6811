"""The monitor of a search: it measures the phases, refines the estimate of the whole, and passes it to observers."""

from __future__ import annotations

from collections.abc import Sequence

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.job_clock import JobClock
from nbt.tuning.job_estimate import JobEstimator
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import FinalRun, StudyObserver, TrialRecord
from nbt.tuning.storage.study_store import StudyStore

_SECONDS_BETWEEN_WRITES = 10.0


class JobMonitor(StudyObserver):
    """Observes a study to store the seconds of its phases and to refine the estimate of the whole.

    The seconds of a session that resumes a study count from its first training on, those before it included: a session
    that finds everything done adds nothing.

    Args:
        store: The study, locked by this driver.
        clock: The clock of the search, with the seconds of earlier sessions.
        estimator: Estimates the whole; None gives no estimates.
        observer: Receives the estimates.

    Attributes:
        clock: The clock of the search.
        estimator: Estimates the whole, or None.
        is_counted: Whether the seconds of this session count.
    """

    def __init__(
        self, store: StudyStore, clock: JobClock, estimator: JobEstimator | None, observer: StudyObserver
    ) -> None:
        self.clock, self.estimator = clock, estimator
        self._store, self._observer = store, observer
        self._settings: dict[int, TransferSettings] = {}
        self._last_write_at = 0.0
        self.is_counted = not clock.earlier
        self._first_estimate = None if estimator is None else estimator.estimate(clock).total
        self._update(write=True)

    def enter(self, phase: str) -> None:
        """Starts a phase and stores the seconds of those before it."""
        self.clock.enter(phase)
        self._update(write=True)

    def training_starts(self) -> None:
        """Counts the seconds of this session; trials and final runs call this themselves."""
        self.is_counted = True

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        """Remembers the settings of the trial."""
        self.training_starts()
        self._settings[number] = settings

    def epoch_finished(self, number: int, result: EpochResult, spent: float) -> None:
        """Refines the estimate by an epoch of a trial."""
        if self.estimator is not None:
            self.estimator.add_epoch(self._settings[number], result, spent)
        self._update()

    def trial_finished(self, trial: TrialRecord) -> None:
        """Forgets the settings of the trial."""
        self._settings.pop(trial.number, None)

    def finals_started(self, runs: int, finalists: Sequence[str]) -> None:
        """Refines the estimate by the number of final runs."""
        self.training_starts()
        if self.estimator is not None:
            self.estimator.start_finals(runs)
        self._update()

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Refines the estimate by a final run."""
        if self.estimator is not None:
            self.estimator.add_final_run(run.curve)
        self._update()

    def _update(self, write: bool = False) -> None:
        """Passes the estimate on, and stores the seconds at the end of a phase or if that was long ago."""
        if self.estimator is not None:
            self._observer.job_estimated(self.estimator.estimate(self.clock))
        if self.is_counted and (write or self.clock.total - self._last_write_at >= _SECONDS_BETWEEN_WRITES):
            self._last_write_at = self.clock.total
            self._store.put(codec.CLOCK, {**self.clock.seconds(), "estimate": self._first_estimate})
