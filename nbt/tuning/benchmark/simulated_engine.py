"""Engine that replays recorded learning curves epoch by epoch in simulated time instead of training."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from nbt.errors import NbtError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.benchmark.tabular import CandidatePool, RecordedSetting, TabularBenchmark
from nbt.tuning.engines.base import TrialSource


@dataclass(frozen=True, kw_only=True)
class ReplayedTrial:
    """One trial of a replay.

    Attributes:
        setting: Index of the setting in the benchmark.
        run: Index of the replayed run of the setting.
        epochs: Epochs of the trial.
        cumulative_epochs: Epochs of all trials up to the end of this one.
        stopped: Reason for which the trial was pruned; None if it ran to its end or diverged.
        distance: Distance of the setting from the sampler's proposal; None for baseline recipes and recommendations,
            which no sampler proposed.
    """

    setting: int
    run: int
    epochs: int
    cumulative_epochs: int
    stopped: str | None
    distance: float | None


@dataclass
class SimulatedClock:
    """A clock that advances by the recorded durations.

    Attributes:
        now: Seconds since the start.
    """

    now: float = 0.0

    def __call__(self) -> float:
        """Returns the seconds since the start."""
        return self.now


@dataclass(eq=False)
class _RunningTrial:
    """A trial that is being replayed, with the number of its epochs that have been replayed."""

    spec: TrialSpec
    setting: int
    run: int
    curve: tuple[EpochResult, ...]
    replayed_epochs: int = 0

    @property
    def epochs_left(self) -> int:
        """Epochs that have not been replayed."""
        return len(self.curve) - self.replayed_epochs


@dataclass(eq=False)
class ReplayEngine:
    """An engine (`nbt.tuning.engines.base.Engine`) that replays recorded curves.

    The replay ends when the source has no more trial specifications or every recorded setting has been used.

    Attributes:
        pool: Pool of recorded settings; it must contain the settings of every trial specification.
        horizon: Epochs of the search; it proposes no setting with a longer run than what is left of them.
        seed: Seed that selects the run of settings with several runs.
        workers: Number of simulated workers. Each run takes its recorded duration.
        clock: Simulated clock.
        trials: Replayed trials in the order in which they ended.
    """

    pool: CandidatePool
    horizon: float = math.inf
    seed: int = 0
    workers: int = 1
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    trials: list[ReplayedTrial] = field(default_factory=list)
    _epochs_spent: int = 0
    _num_started: int = 0

    def run(self, source: TrialSource) -> None:
        """Replays trials until the source or the pool is exhausted.

        Raises:
            NbtError: The settings of a trial specification were not recorded.
        """
        event_queue: list[tuple[float, int, _RunningTrial]] = []
        self._start_trials(source, event_queue)
        while event_queue:
            self.clock.now, order, running = heapq.heappop(event_queue)
            if self._replay_epoch(source, running):
                self._start_trials(source, event_queue)
            else:
                next_epoch = running.curve[running.replayed_epochs]
                heapq.heappush(event_queue, (self.clock.now + next_epoch.seconds, order, running))

    def close(self) -> None:
        """Does nothing: the engine holds no resources."""

    def _start_trials(self, source: TrialSource, event_queue: list[tuple[float, int, _RunningTrial]]) -> None:
        """Starts trials until all workers are busy; an event is the end of the next epoch of a trial."""
        while len(event_queue) < self.workers:
            self.pool.max_epochs = self.horizon - self._epochs_spent - sum(r.epochs_left for _, _, r in event_queue)
            if not len(self.pool) or (spec := source.next_trial()) is None:
                return
            running, recorded = self._start(spec)
            run = recorded.runs[running.run]
            first_epoch_end = self.clock.now + run.setup_seconds + running.curve[0].seconds
            heapq.heappush(event_queue, (first_epoch_end, self._num_started, running))
            self._num_started += 1

    def _start(self, spec: TrialSpec) -> tuple[_RunningTrial, RecordedSetting]:
        """Returns the trial of a specification and its recorded setting, which is marked as used.

        Raises:
            NbtError: The settings were not recorded.
        """
        benchmark: TabularBenchmark = self.pool.benchmark
        index = benchmark.index.get(spec.settings)
        if index is None:
            raise NbtError(f"{benchmark.header.name}: {spec.key} has settings that were not recorded")
        if index not in self.pool.distances:  # a baseline recipe or a recommendation, which no sampler proposed
            self.pool.mark_used(index)
        recorded = benchmark.settings[index]
        run = recorded.choose_run(self.seed)
        return _RunningTrial(spec, index, run, recorded.curves[run]), recorded

    def _replay_epoch(self, source: TrialSource, running: _RunningTrial) -> bool:
        """Replays one epoch; returns whether the trial has ended."""
        result = running.curve[running.replayed_epochs]
        running.replayed_epochs += 1
        self._epochs_spent += 1
        reason = source.on_epoch(running.spec, result)
        finished = running.replayed_epochs == len(running.curve)
        if not finished and reason is None:
            return False
        stopped = None if finished else reason
        self.trials.append(
            ReplayedTrial(
                setting=running.setting,
                run=running.run,
                epochs=running.replayed_epochs,
                cumulative_epochs=self._epochs_spent,
                stopped=stopped,
                distance=self.pool.distances[running.setting],
            )
        )
        source.on_done(running.spec, TrialOutcome(curve=running.curve[: running.replayed_epochs], stopped=stopped))
        return True
