"""Plays recorded curves, epoch by epoch in simulated time, to a source of jobs that believes they are trained."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from nbt.errors import NbtError
from nbt.search.engines.base import JobSource
from nbt.search.replay.pool import Catalogue, Pool, RecordedSetting
from nbt.training.results import EpochResult, TrialJob, TrialOutcome


@dataclass(frozen=True, kw_only=True)
class PlayedTrial:
    """One trial of a replay.

    Attributes:
        setting: Index in the catalogue.
        run: Index of the run of the setting that was played.
        epochs: That it cost.
        spent: Epochs of all trials until its end.
        stopped: Why it was stopped early; None where it ran to its end or diverged.
        distance: Of the setting from what was proposed; None for a first trial, which nobody proposed.
    """

    setting: int
    run: int
    epochs: int
    spent: int
    stopped: str | None
    distance: float | None


@dataclass
class SimulatedClock:
    """Seconds that pass as the recorded runs say."""

    now: float = 0.0

    def __call__(self) -> float:
        """Returns the seconds that have passed."""
        return self.now


@dataclass(eq=False)
class _Playing:
    job: TrialJob
    setting: int
    run: int
    curve: tuple[EpochResult, ...]
    done: int = 0


@dataclass(eq=False)
class CurvePlayer:
    """An engine over recorded curves (`nbt.search.engines.base.Engine`).

    The replay ends when the source has no more jobs, or when every recorded setting was used.

    Attributes:
        pool: What is recorded; the settings of every job must be in it.
        seed: Decides which run of a setting that ran twice is played.
        workers: Runs at a time; each takes the seconds that it took when it was recorded.
        clock: Moved on as time passes.
        trials: What was played, in the order in which it ended.
    """

    pool: Pool
    seed: int = 0
    workers: int = 1
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    trials: list[PlayedTrial] = field(default_factory=list)
    _spent: int = 0
    _started: int = 0

    def run(self, source: JobSource) -> None:
        """Plays until there is nothing left to play."""
        due: list[tuple[float, int, _Playing]] = []
        self._fill(source, due)
        while due:
            self.clock.now, order, playing = heapq.heappop(due)
            if self._step(source, playing):
                self._fill(source, due)
            else:
                next_epoch = playing.curve[playing.done]
                heapq.heappush(due, (self.clock.now + next_epoch.seconds, order, playing))

    def close(self) -> None:
        """Holds nothing."""

    def _fill(self, source: JobSource, due: list[tuple[float, int, _Playing]]) -> None:
        while len(due) < self.workers and len(self.pool) and (job := source.next_job()) is not None:
            playing, recorded = self._open(job)
            run = recorded.runs[playing.run]
            first = self.clock.now + run.setup_seconds + playing.curve[0].seconds
            heapq.heappush(due, (first, self._started, playing))
            self._started += 1

    def _open(self, job: TrialJob) -> tuple[_Playing, RecordedSetting]:
        catalogue: Catalogue = self.pool.catalogue
        index = catalogue.index.get(job.settings)
        if index is None:
            raise NbtError(f"{catalogue.header.name}: {job.key} asks for settings that were not recorded")
        if index not in self.pool.distances:  # a first trial, which no sampler proposed
            self.pool.use(index)
        recorded = catalogue.settings[index]
        run = recorded.pick(self.seed)
        return _Playing(job, index, run, recorded.curves[run]), recorded

    def _step(self, source: JobSource, playing: _Playing) -> bool:
        """Plays an epoch; returns whether the run is over."""
        result = playing.curve[playing.done]
        playing.done += 1
        self._spent += 1
        reason = source.on_epoch(playing.job, result)
        over = playing.done == len(playing.curve)
        if not over and reason is None:
            return False
        stopped = None if over else reason
        self.trials.append(
            PlayedTrial(
                setting=playing.setting,
                run=playing.run,
                epochs=playing.done,
                spent=self._spent,
                stopped=stopped,
                distance=self.pool.distances[playing.setting],
            )
        )
        source.on_done(playing.job, TrialOutcome(curve=playing.curve[: playing.done], stopped=stopped))
        return True
