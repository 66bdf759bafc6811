"""TrialSupervisor: which specs are on their way to a cluster, who runs them, and what becomes of them. It knows no Ray."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbt.training.export.model_folder import replace_folder
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.engines.distributed.gpu_packing import GpuPacking
from nbt.tuning.engines.distributed.protocol import TrialAssignment, WorkerLocation, WorkerMessage

_log = logging.getLogger("nbt")


@dataclass(frozen=True)
class RunDecision:
    """What a run does next.

    Attributes:
        over: It is at its end: nobody waits for more of it.
        reason: Why it must stop; None to go on.
        retire_worker: Its worker is of no more use.
    """

    finished: bool = False
    reason: str | None = None
    retire_worker: bool = False


@dataclass(eq=False)
class _TrialRun:
    """A spec on its way.

    Attributes:
        spec: What it runs.
        slot: Number of its worker.
        attempt: Name of the attempt that runs it; None while it waits for one.
        message: Its epochs, each with the source's answer.
        worker_failures: Workers that it has cost.
        location: Where it runs, once that is known.
        resources: What it asks for.
        lost: The workers that it has lost: where each was, and the reason.
    """

    spec: TrialSpec
    slot: int
    attempt: str | None = None
    message: dict[int, tuple[EpochResult, str | None]] = field(default_factory=dict)
    worker_failures: int = 0
    location: WorkerLocation | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> dict[str, Any]:
        return {} if self.location is None else self.location.facts()

    @property
    def curve(self) -> tuple[EpochResult, ...]:
        return tuple(self.message[epoch][0] for epoch in sorted(self.message))


class TrialSupervisor:
    """The driver's side of all runs: every call to the source, and every file that the driver keeps.

    A spec may need several attempts: one whose worker dies runs once more, one whose node is lost as often as it takes,
    each from the newest checkpoint that arrived here. The source notices nothing: it is asked once about every epoch.

    Args:
        workers: Jobs at a time.
        packing: What a run asks for.
    """

    def __init__(self, workers: int, packing: GpuPacking | None = None) -> None:
        self.max_concurrent = workers
        self._packing = packing or GpuPacking({})
        self._source: TrialSource | None = None
        self._runs: list[_TrialRun] = []
        self._source_has_more = False
        self._warnings: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether nothing runs and the source has no more."""
        return not self._runs and not self._source_has_more

    def open(self, source: TrialSource) -> None:
        """Begins to run the specs of a source."""
        self._source, self._source_has_more = source, True

    def next_assignment(self, attempt: str) -> TrialAssignment | None:
        """Returns what a new attempt is to run, None where there is nothing now."""
        run = next((run for run in self._runs if run.attempt is None), None) or self._new_run()
        if run is None:
            return None
        run.attempt, run.location, run.resources = attempt, None, self._packing.current()
        return TrialAssignment(run.spec, _read_checkpoint(run.spec.checkpoint), run.resources, run.slot)

    def handle_message(self, attempt: str, message: WorkerMessage) -> RunDecision:
        """Takes what an attempt says; of one that was given up nobody wants to handle_message."""
        self._log(message)
        run = self._find_run(attempt)
        if run is None:
            return RunDecision(finished=True)
        if message.location not in (WorkerLocation(), run.location):
            assert self._source is not None
            run.location = message.location
            self._source.on_placed(run.spec, run.where)
        if message.checkpoint is not None and run.spec.checkpoint is not None:
            _write_atomically(run.spec.checkpoint, message.checkpoint)
        if message.epoch is not None:
            return RunDecision(reason=self._decide(run, message.epoch))
        assert message.outcome is not None
        self._handle_outcome(run, message, message.outcome)
        # One that has run out of memory keeps what it took, and one without tools would fail at the next run, too.
        return RunDecision(finished=True, retire_worker=message.setup_failed or message.outcome.out_of_memory)

    def _log(self, message: WorkerMessage) -> None:
        """Logs what a worker has logged, of warnings that several workers give only the first."""
        for level, text in message.logs:
            if level != logging.WARNING or text not in self._warnings:
                _log.log(level, "%s", text)
            if level == logging.WARNING:
                self._warnings.add(text)

    def handle_worker_lost(self, attempt: str, reason: str, *, node_lost: bool = False) -> None:
        """Takes the end of a worker. The loss of a whole node is not held against the spec that it ran."""
        run = self._find_run(attempt)
        if run is not None:
            self._retry(run, reason, 0 if node_lost else 1)

    def handle_all_workers_lost(self, reason: str) -> None:
        """Takes the end of all workers, for which no spec is to blame."""
        for run in [run for run in self._runs if run.attempt is not None]:
            self._retry(run, reason, 0)

    def abandon_all(self) -> None:
        """Abandons what runs."""
        source, runs = self._source, self._runs
        self._source, self._runs, self._source_has_more = None, [], False
        for run in runs:
            try:
                assert source is not None
                source.on_abandoned(run.spec)
            except Exception as error:  # it must not hide the error that is the reason for all this
                _log.warning("%s could not be marked as abandoned: %s", run.spec.key, error)

    def _new_run(self) -> _TrialRun | None:
        """Asks the source for a spec. An answer of None holds until a run has ended."""
        if (
            self._source is None
            or not self._source_has_more
            or len(self._runs) >= self._packing.max_concurrent(self.max_concurrent)
        ):
            return None
        spec = self._source.next_trial()
        if spec is None:
            self._source_has_more = False
            return None
        taken = {run.slot for run in self._runs}
        run = _TrialRun(spec, min(slot for slot in range(len(taken) + 1) if slot not in taken))
        self._runs.append(run)
        return run

    def _find_run(self, attempt: str) -> _TrialRun | None:
        return next((run for run in self._runs if run.attempt == attempt), None)

    def _decide(self, run: _TrialRun, result: EpochResult) -> str | None:
        """Asks the source once for every epoch: a spec that runs again repeats epochs that it has heard of."""
        if result.epoch not in run.message:
            assert self._source is not None
            run.message[result.epoch] = (result, self._source.on_epoch(run.spec, result))
        return run.message[result.epoch][1]

    def _handle_outcome(self, run: _TrialRun, message: WorkerMessage, outcome: TrialOutcome) -> None:
        if outcome.out_of_memory and self._shares_device(run):
            self._packing.record_memory(outcome.facts)  # it takes at least what it had
            self._requeue(run, self._reduce_concurrency(run))
        elif message.setup_failed:
            self._handle_setup_failure(run, message, outcome)
        else:
            if message.export is not None and run.spec.export is not None:
                _write_model(run.spec.export, message.export)
            if outcome.error is None and run.spec.checkpoint is not None:
                _remove_checkpoint(run.spec.checkpoint)
            self._finish(run, outcome)

    def _handle_setup_failure(self, run: _TrialRun, message: WorkerMessage, outcome: TrialOutcome) -> None:
        """Does without a worker that could not be set up where others could: a setup_failed GPU would fail spec after spec."""
        host = f" on {message.location.host}" if message.location.host else ""
        reason = f"a worker could not be set up{host} ({outcome.error})"
        if any(other.location is not None for other in self._runs if other is not run):
            self.max_concurrent -= 1
            self._requeue(run, f"{reason}: going on with {self.max_concurrent} at a time")
        else:
            self._retry(run, reason, 1)

    def _retry(self, run: _TrialRun, reason: str, worker_failures: int) -> None:
        run.worker_failures += worker_failures
        run.attempt = None
        run.lost.append({**run.where, "reason": reason})
        if run.worker_failures < 2:
            _log.warning("%s: %s; running it again", run.spec.key, reason)
        else:
            self._finish(run, TrialOutcome(curve=run.curve, error=reason))

    def _finish(self, run: _TrialRun, outcome: TrialOutcome) -> None:
        self._runs.remove(run)
        self._source_has_more = True
        if outcome.error is None:
            self._packing.record_memory(outcome.facts)
        assert self._source is not None
        facts = {**run.where, **outcome.facts, "worker": run.slot}
        if run.lost:
            facts["lost_workers"] = run.lost
        self._source.on_done(run.spec, dataclasses.replace(outcome, facts=facts))

    def _shares_device(self, run: _TrialRun) -> bool:
        """Tells whether other runs may hold the memory that this one lacked."""
        if run.resources.get("GPU", 0.0) >= 1.0:
            return False
        others = [other for other in self._runs if other is not run and other.attempt is not None]
        return any(run.location is None or run.location.may_share_memory_with(other.location) for other in others)

    def _reduce_concurrency(self, run: _TrialRun) -> str:
        """Lets fewer run where one ran out of memory; returns that in words."""
        where = f"{run.location.device} of {run.location.host}" if run.location is not None else "a device"
        if self._packing.reduce_sharing(run.resources):
            return f"out of memory on {where}: going on with {self._packing.current()['GPU']:.2g} of a GPU for each"
        self.max_concurrent -= 1
        return f"out of memory on {where}: going on with {self.max_concurrent} at a time"

    def _requeue(self, run: _TrialRun, reason: str) -> None:
        """Gives a spec back to the source."""
        self._runs.remove(run)
        self._source_has_more = True
        _log.warning("%s", reason)
        assert self._source is not None
        self._source.on_abandoned(run.spec)


def _read_checkpoint(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except FileNotFoundError:
        return None


def _remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint, and what a worker of this machine left beside it in an earlier session."""
    for found in path.parent.glob(f"{path.name}*"):
        found.unlink(missing_ok=True)


def _write_atomically(path: Path, content: bytes) -> None:
    """Writes a file to a temporary name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_model(folder: Path, files: Mapping[str, bytes]) -> None:
    with replace_folder(folder) as location:
        for name, content in files.items():
            (location / name).write_bytes(content)
