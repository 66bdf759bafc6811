"""The clock of a search: the seconds of each phase, over all sessions of its study, measured and estimated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PREPARE, PROFILE, TRIALS, FINALS, TRAIN, REPORT = PHASES = ("prepare", "profile", "trials", "finals", "train", "report")
"""The phases in their order: loading and checks, fit profile, trials, final runs, last training, report."""


@dataclass(frozen=True)
class JobEstimate:
    """Estimated duration of a search.

    Attributes:
        phases: Seconds of each phase; those of the finished ones are measured.
        elapsed: Seconds so far.
        is_limit: Whether the search may end earlier, because its budget is "auto".
        earlier: Seconds of earlier sessions.
    """

    phases: Mapping[str, float]
    elapsed: float
    is_limit: bool = False
    earlier: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of the whole search."""
        return sum(self.phases.values())

    @property
    def finals_share(self) -> float:
        """Seconds of finals and last training relative to those of the trials; infinite without trials."""
        return finals_share(self.phases)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return max(0.0, self.total - self.elapsed)


def finals_share(seconds: Mapping[str, float]) -> float:
    """Returns the seconds of finals and last training relative to those of the trials; infinite without trials."""
    trials = seconds.get(TRIALS, 0.0)
    return (seconds.get(FINALS, 0.0) + seconds.get(TRAIN, 0.0)) / trials if trials else math.inf


class JobClock:
    """Measures the wall-clock time of the phases of a search; it starts with the first phase.

    Args:
        clock: Returns a monotonic time in seconds.
        phase: The phase that runs now.
        earlier: Seconds of earlier sessions by phase; unknown names are ignored.

    Attributes:
        phase: The phase that runs now.
        earlier: Seconds of earlier sessions.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        phase: str = PREPARE,
        earlier: Mapping[str, float] | None = None,
    ) -> None:
        self._clock, self._since = clock, clock()
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self.phase, self.earlier = phase, 0.0
        self.add(earlier or {})

    def add(self, earlier: Mapping[str, float]) -> None:
        """Adds the seconds of earlier sessions."""
        for phase in PHASES:
            self._seconds[phase] += earlier.get(phase, 0.0)
            self.earlier += earlier.get(phase, 0.0)

    def enter(self, phase: str) -> None:
        """Ends the phase that runs now and starts another one."""
        self._seconds, self._since, self.phase = self.seconds(), self._clock(), phase

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase so far."""
        return {**self._seconds, self.phase: self._seconds[self.phase] + self._clock() - self._since}

    @property
    def total(self) -> float:
        """Seconds of all phases so far."""
        return sum(self.seconds().values())
