"""Plays recorded curves, epoch by epoch in simulated time, to a source of specs that believes they are trained."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from nbt.errors import NbtError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.benchmark.tabular import CandidatePool, RecordedSetting, TabularBenchmark
from nbt.tuning.engines.base import TrialSource


@dataclass(frozen=True, kw_only=True)
class ReplayedTrial:
    """One trial of a replay.

    Attributes:
        setting: Index in the catalogue.
        run: Index of the run of the setting that was played.
        epochs: That it cost.
        cumulative_epochs: Epochs of all trials until its end.
        stopped: Why it was stopped early; None where it ran to its end or diverged.
        distance: Of the setting from what was proposed; None for a first trial, which nobody proposed.
    """

    setting: int
    run: int
    epochs: int
    cumulative_epochs: int
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
class _RunningTrial:
    spec: TrialSpec
    setting: int
    run: int
    curve: tuple[EpochResult, ...]
    done: int = 0


@dataclass(eq=False)
class ReplayEngine:
    """An engine over recorded curves (`nbt.tuning.engines.base.Engine`).

    The replay ends when the source has no more specs, or when every recorded setting was used.

    Attributes:
        pool: What is recorded; the settings of every spec must be in it.
        seed: Decides which run of a setting that ran twice is played.
        workers: Runs at a time; each takes the seconds that it took when it was recorded.
        clock: Moved on as time passes.
        trials: What was played, in the order in which it ended.
    """

    pool: CandidatePool
    seed: int = 0
    workers: int = 1
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    trials: list[ReplayedTrial] = field(default_factory=list)
    _epochs_spent: int = 0
    _num_started: int = 0

    def run(self, source: TrialSource) -> None:
        """Plays until there is nothing left to play."""
        event_queue: list[tuple[float, int, _RunningTrial]] = []
        self._start_trials(source, event_queue)
        while event_queue:
            self.clock.now, order, running = heapq.heappop(event_queue)
            if self._replay_epoch(source, running):
                self._start_trials(source, event_queue)
            else:
                next_epoch = running.curve[running.done]
                heapq.heappush(event_queue, (self.clock.now + next_epoch.seconds, order, running))

    def close(self) -> None:
        """Holds nothing."""

    def _start_trials(self, source: TrialSource, event_queue: list[tuple[float, int, _RunningTrial]]) -> None:
        while len(event_queue) < self.workers and len(self.pool) and (spec := source.next_trial()) is not None:
            running, recorded = self._start(spec)
            run = recorded.runs[running.run]
            first = self.clock.now + run.setup_seconds + running.curve[0].seconds
            heapq.heappush(event_queue, (first, self._num_started, running))
            self._num_started += 1

    def _start(self, spec: TrialSpec) -> tuple[_RunningTrial, RecordedSetting]:
        benchmark: TabularBenchmark = self.pool.benchmark
        index = benchmark.index.get(spec.settings)
        if index is None:
            raise NbtError(f"{benchmark.header.name}: {spec.key} asks for settings that were not recorded")
        if index not in self.pool.distances:  # a first trial, which no sampler proposed
            self.pool.use(index)
        recorded = benchmark.settings[index]
        run = recorded.choose_run(self.seed)
        return _RunningTrial(spec, index, run, recorded.curves[run]), recorded

    def _replay_epoch(self, source: TrialSource, running: _RunningTrial) -> bool:
        """Plays an epoch; returns whether the run is over."""
        result = running.curve[running.done]
        running.done += 1
        self._epochs_spent += 1
        reason = source.on_epoch(running.spec, result)
        over = running.done == len(running.curve)
        if not over and reason is None:
            return False
        stopped = None if over else reason
        self.trials.append(
            ReplayedTrial(
                setting=running.setting,
                run=running.run,
                epochs=running.done,
                cumulative_epochs=self._epochs_spent,
                stopped=stopped,
                distance=self.pool.distances[running.setting],
            )
        )
        source.on_done(running.spec, TrialOutcome(curve=running.curve[: running.done], stopped=stopped))
        return True
