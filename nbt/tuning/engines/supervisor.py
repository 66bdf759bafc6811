"""The supervisor of the trials of every engine: assignment, retries, failures, log records and calls to the source."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.engines.gpu_packing import GpuPacking
from nbt.tuning.engines.protocol import TrialAssignment, WorkerLocation, WorkerMessage

_log = logging.getLogger("nbt")


@dataclass(frozen=True)
class RunDecision:
    """How an attempt proceeds after a message.

    Attributes:
        finished: Whether the attempt is at its end and further messages are ignored.
        stop_reason: The reason to stop the trial; None to continue.
        retire_worker: Whether the worker is to be ended rather than reused.
    """

    finished: bool = False
    stop_reason: str | None = None
    retire_worker: bool = False


_CONTINUE = RunDecision()


@dataclass(eq=False)
class _TrialRun:
    """State of a trial that is running or waiting for a worker.

    Attributes:
        source: Source of the trial.
        spec: Specification of the trial.
        slot: Number of its worker, 0 ... workers - 1.
        attempt: Name of the current attempt; None while the trial waits for one.
        decisions: By epoch, its result and the source's reply (the reason to stop, or None to continue).
        worker_failures: Number of workers that have failed during the trial, without those whose whole node was lost.
        location: Location of the current worker, once it is known.
        resources: Resources that the current attempt requests.
        lost_workers: Location and reason of each worker lost during the trial.
    """

    source: TrialSource
    spec: TrialSpec
    slot: int
    attempt: str | None = None
    decisions: dict[int, tuple[EpochResult, str | None]] = field(default_factory=dict)
    worker_failures: int = 0
    location: WorkerLocation | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    lost_workers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def location_facts(self) -> dict[str, Any]:
        return {} if self.location is None else self.location.facts()

    @property
    def curve(self) -> tuple[EpochResult, ...]:
        return tuple(self.decisions[epoch][0] for epoch in sorted(self.decisions))


class TrialSupervisor:
    """Runs the trials of a source in attempts and makes all calls to the source.

    An engine requests assignments, starts their attempts on its workers and hands over the messages of the workers. A
    trial whose worker fails is retried once; a trial whose whole node is lost is retried without limit. The source
    receives each epoch once. When a device that several workers may use runs out of memory, the trial is returned to
    the source and fewer trials run concurrently.

    Args:
        workers: Number of concurrent trials.
        packing: Resources per trial; none are requested when None.
    """

    def __init__(self, workers: int, packing: GpuPacking | None = None) -> None:
        self._slots = set(range(workers))
        self._packing = packing or GpuPacking({})
        self._source: TrialSource | None = None
        self._runs: list[_TrialRun] = []
        self._idle: dict[int, WorkerLocation | None] = {}  # workers without a trial, which keep their memory, by slot
        self._source_has_more = False
        self._warnings: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether no trial is running or waiting and the source has none left."""
        return not self._runs and not self._source_has_more

    @property
    def max_concurrent(self) -> int:
        """Maximum number of concurrent trials; reduced after failures."""
        return len(self._slots)

    def start(self, source: TrialSource) -> None:
        """Starts running the trials of a source."""
        self._source, self._source_has_more = source, True

    def next_assignment(self, attempt: str) -> TrialAssignment | None:
        """Returns the trial that a new attempt is to run, or None when there is none at the moment.

        Args:
            attempt: Name of the attempt, which no other attempt at present has.
        """
        run = next((run for run in self._runs if run.attempt is None), None) or self._new_run()
        if run is None:
            return None
        run.attempt, run.location, run.resources = attempt, None, self._packing.resources()
        self._idle.pop(run.slot, None)
        return TrialAssignment(run.spec, run.resources, run.slot)

    def running_spec(self, attempt: str) -> TrialSpec | None:
        """Returns the trial of an attempt; None if the attempt has ended or was abandoned."""
        run = self._find_run(attempt)
        return None if run is None else run.spec

    def handle_message(self, attempt: str, message: WorkerMessage) -> RunDecision:
        """Handles a message of an attempt; of one that was abandoned, only the log records are used."""
        if message.logs:
            self._log(message)
        run = self._find_run(attempt)
        if run is None:
            return RunDecision(finished=True)
        if message.location is not None and message.location != run.location:
            run.location = message.location
            run.source.on_placed(run.spec, run.location_facts)
        if message.epoch is not None:
            reason = self._decide(run, message.epoch)
            return _CONTINUE if reason is None else RunDecision(stop_reason=reason)
        if message.outcome is None:
            return _CONTINUE
        # After running out of memory a worker keeps its allocations; after a failed set-up the next trial fails, too.
        retire_worker = message.setup_failed or message.outcome.out_of_memory
        if not retire_worker:
            self._idle[run.slot] = run.location
        self._handle_outcome(run, message, message.outcome)
        return RunDecision(finished=True, retire_worker=retire_worker)

    def _log(self, message: WorkerMessage) -> None:
        """Logs the records of a worker; a warning with the same text is logged once."""
        for level, text in message.logs:
            if level != logging.WARNING or text not in self._warnings:
                _log.log(level, "%s", text)
            if level == logging.WARNING:
                self._warnings.add(text)

    def handle_worker_lost(self, attempt: str, reason: str, *, node_lost: bool = False) -> None:
        """Handles the loss of a worker. The loss of a whole node does not count as a failure of the trial."""
        run = self._find_run(attempt)
        if run is not None:
            self._retry(run, reason, counts=not node_lost)

    def handle_all_workers_lost(self, reason: str) -> None:
        """Handles the loss of all workers, which does not count as a failure of any trial."""
        self._idle.clear()
        for run in [run for run in self._runs if run.attempt is not None]:
            self._retry(run, reason, counts=False)

    def abandon_all(self) -> None:
        """Abandons all trials."""
        runs, self._runs, self._source_has_more = self._runs, [], False
        self._idle.clear()
        for run in runs:
            try:
                run.source.on_abandoned(run.spec)
            except Exception as error:  # it must not hide the error that ended the run
                _log.warning("%s could not be marked as abandoned: %s", run.spec.key, error)

    def _new_run(self) -> _TrialRun | None:
        """Requests a trial from the source, unless it has returned None and no trial has ended since."""
        if (
            self._source is None
            or not self._source_has_more
            or len(self._runs) >= self._packing.max_concurrent(self.max_concurrent)
        ):
            return None
        busy = {run.slot: run.resources for run in self._runs}
        slot = self._packing.choose_slot(sorted(self._slots - busy.keys()), busy)
        if slot is None:
            return None
        spec = self._source.next_trial()
        if spec is None:
            self._source_has_more = False
            return None
        run = _TrialRun(self._source, spec, slot)
        self._runs.append(run)
        return run

    def _find_run(self, attempt: str) -> _TrialRun | None:
        for run in self._runs:
            if run.attempt == attempt:
                return run
        return None

    def _decide(self, run: _TrialRun, result: EpochResult) -> str | None:
        """Reports each epoch to the source once; a retried trial repeats epochs that the source has received."""
        if (decision := run.decisions.get(result.epoch)) is None:
            decision = run.decisions[result.epoch] = (result, run.source.on_epoch(run.spec, result))
        return decision[1]

    def _handle_outcome(self, run: _TrialRun, message: WorkerMessage, outcome: TrialOutcome) -> None:
        if outcome.out_of_memory and self._shares_device(run):
            self._packing.record_memory(outcome.facts)  # a lower bound of what it needs
            self._handle_shared_out_of_memory(run)
        elif message.setup_failed:
            self._handle_setup_failure(run, message, outcome)
        else:
            self._finish(run, outcome)

    def _handle_shared_out_of_memory(self, run: _TrialRun) -> None:
        """Reduces the number of trials per GPU, or the number of workers."""
        device = f"{run.location.device} of {run.location.host}" if run.location is not None else "a device"
        if self._packing.reduce_sharing(run.resources):
            gpu_share = self._packing.resources()["GPU"]
            self._requeue(run, f"out of memory on {device}: GPU share per trial raised to {gpu_share:.2g}")
        else:
            self._remove_slot(run, f"out of memory on {device}")

    def _handle_setup_failure(self, run: _TrialRun, message: WorkerMessage, outcome: TrialOutcome) -> None:
        """Reduces the concurrency if other workers could be set up: on a faulty GPU, trial after trial would fail."""
        host = f" on {message.location.host}" if message.location is not None and message.location.host else ""
        reason = f"a worker could not be set up{host} ({outcome.error})"
        if any(location is not None for location in self._other_workers(run)):
            self._remove_slot(run, reason)
        else:
            self._retry(run, reason, counts=True)

    def _other_workers(self, run: _TrialRun) -> list[WorkerLocation | None]:
        """Returns the locations of the workers that run other trials or are idle."""
        running = [other.location for other in self._runs if other is not run and other.attempt is not None]
        return [*running, *self._idle.values()]

    def _shares_device(self, run: _TrialRun) -> bool:
        """Returns whether other workers may occupy the memory that this one lacked."""
        if run.resources.get("GPU", 0.0) >= 1.0:
            return False
        others = self._other_workers(run)
        return any(run.location is None or run.location.may_share_memory_with(other) for other in others)

    def _retry(self, run: _TrialRun, reason: str, *, counts: bool) -> None:
        """Runs a trial again, or lets it fail if this is the second failure of a worker that counts."""
        run.worker_failures += counts
        run.attempt = None
        run.lost_workers.append({**run.location_facts, "reason": reason})
        if run.worker_failures < 2:
            _log.warning("%s: %s; running it again", run.spec.key, reason)
        else:
            self._finish(run, TrialOutcome(curve=run.curve, error=reason))

    def _finish(self, run: _TrialRun, outcome: TrialOutcome) -> None:
        self._runs.remove(run)
        self._source_has_more = True
        if outcome.error is None:
            self._packing.record_memory(outcome.facts)
        facts = {**run.location_facts, **outcome.facts, "worker": run.slot}
        if run.lost_workers:
            facts["lost_workers"] = run.lost_workers
        run.source.on_done(run.spec, dataclasses.replace(outcome, facts=facts))

    def _remove_slot(self, run: _TrialRun, reason: str) -> None:
        """Removes the slot of a trial, which another worker runs later."""
        self._slots.discard(run.slot)
        self._requeue(run, f"{reason}: concurrent trials reduced to {self.max_concurrent}")

    def _requeue(self, run: _TrialRun, reason: str) -> None:
        """Gives a trial back to the source."""
        self._runs.remove(run)
        self._source_has_more = True
        _log.warning("%s", reason)
        run.source.on_abandoned(run.spec)
