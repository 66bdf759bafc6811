"""The local engine: runs trials in this process or in worker processes that are reused from trial to trial."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from nbt.errors import require_positive
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.engines.distributed.protocol import local_worker_location
from nbt.tuning.engines.interrupts import InterruptGuard
from nbt.tuning.engines.worker import TRIAL_RUNNER, Runner, WorkerSetup
from nbt.tuning.engines.worker_process import WorkerProcess, join_ended_worker, join_workers

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")


class LocalEngine:
    """Runs the trials of a source on this machine.

    One worker runs its trials in this process. Several workers are processes of their own, which start on demand, keep
    their resources between trials and end with the engine or with this process. Ctrl-C and SIGTERM abandon the running
    trials and raise KeyboardInterrupt, never during a call to the source. A trial whose worker process dies is run once
    more by another worker, from its checkpoint if it has one; if that worker dies, too, the trial fails. When a device
    that several workers share runs out of memory, the trial is returned to the source and the number of workers is
    reduced by one.

    Args:
        task: The task to fine-tune on.
        workers: Number of concurrent trials, 1 or more.
        device: "cpu", "cuda", "cuda:1" for all workers; when None, worker i uses GPU i modulo the number of GPUs, or
            the CPU without GPUs.
        cache_bytes: Memory limit of each worker's frozen-feature cache; a share of the free memory when None.
        runner: "module:name" of the class of a worker's `Runner`; another class replaces real training, in tests or to
            replay recorded curves. It is called with `(task, slot=, workers=, device=, cache_bytes=)`.
        shared_folder: Folder in which workers on CPUs share frozen features; None keeps them in each worker.

    Raises:
        UsageError: `workers` is below 1.
    """

    def __init__(
        self,
        task: Task,
        *,
        workers: int = 1,
        device: str | None = None,
        cache_bytes: int | None = None,
        runner: str = TRIAL_RUNNER,
        shared_folder: Path | None = None,
    ) -> None:
        require_positive(workers=workers)
        setup = WorkerSetup(
            task,
            workers=workers,
            device=device,
            cache_bytes=cache_bytes,
            runner=runner,
            shared_folder=shared_folder,
        )
        self._executor: _Executor = _InProcessExecutor(setup) if workers == 1 else _ProcessExecutor(setup)

    def run(self, source: TrialSource) -> None:
        """Runs trials until the source has none left.

        Raises:
            KeyboardInterrupt: The running trials were abandoned.
            Exception: The source raised it; the running trials were abandoned.
        """
        with InterruptGuard() as guard:
            self._executor.run(source, guard)

    def close(self) -> None:
        """Ends the workers and frees their resources; may be called twice."""
        self._executor.close()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Executor(Protocol):
    """Runs trials in one of the two ways of the local engine."""

    def run(self, source: TrialSource, guard: InterruptGuard) -> None: ...

    def close(self) -> None: ...


class _SourceError(BaseException):
    """Carries an error of the source through a runner, which would treat every `Exception` as the trial's own."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _InProcessExecutor:
    """Runs one trial at a time in this process."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._runner: Runner | None = None

    def run(self, source: TrialSource, guard: InterruptGuard) -> None:
        spec: TrialSpec | None = None
        try:
            while True:
                with guard.deferred():
                    spec = source.next_trial()
                if spec is None:
                    return
                outcome = self._run_trial(spec, source, guard)
                with guard.deferred():
                    done, spec = spec, None
                    source.on_done(done, outcome)
        except BaseException:
            if spec is not None:
                _notify_abandoned(source, spec)
            raise

    def _run_trial(self, spec: TrialSpec, source: TrialSource, guard: InterruptGuard) -> TrialOutcome:
        def on_epoch(result: EpochResult) -> str | None:
            try:
                with guard.deferred():
                    return source.on_epoch(spec, result)
            except Exception as error:
                raise _SourceError(error) from error

        if self._runner is None:
            self._runner = self._setup.open_runner()
        device = self._runner.device
        with guard.deferred():
            source.on_placed(spec, local_worker_location(device).facts())
        try:
            return _with_worker_facts(self._runner.run(spec, on_epoch), 0, device)
        except _SourceError as failure:
            raise failure.error from None

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


@dataclass(eq=False)
class _TrialRun:
    """State of a running trial.

    Attributes:
        spec: Specification of the trial.
        worker: The worker that runs it.
        decisions: By epoch, its result and the source's reply (the reason to stop, or None to continue).
        lost_workers: Location and reason of each worker that ended during the trial.
    """

    spec: TrialSpec
    worker: WorkerProcess | None = None
    decisions: dict[int, tuple[EpochResult, str | None]] = field(default_factory=dict)
    lost_workers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def curve(self) -> tuple[EpochResult, ...]:
        return tuple(self.decisions[epoch][0] for epoch in sorted(self.decisions))


class _ProcessExecutor:
    """Runs several workers, one process each. Only the caller's thread accesses the source and the workers."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._slots = set(range(setup.workers))
        self._workers: list[WorkerProcess] = []
        self._runs: list[_TrialRun] = []

    def run(self, source: TrialSource, guard: InterruptGuard) -> None:
        try:
            while True:
                with guard.deferred():
                    self._start_trials(source)
                if not self._runs:
                    return
                ready = wait([worker.connection for worker in self._workers])
                for worker in [worker for worker in self._workers if worker.connection in ready]:
                    with guard.deferred():
                        self._receive_message(worker, source)
        except BaseException:
            self._abandon_all(source)
            raise

    def close(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.request_exit()
        join_workers(workers)

    def _start_trials(self, source: TrialSource) -> None:
        """Starts trials until all slots are busy or the source has none."""
        while len(self._runs) < len(self._slots):
            spec = source.next_trial()
            if spec is None:
                return
            run = _TrialRun(spec)
            self._runs.append(run)
            self._assign_worker(run, source)

    def _assign_worker(self, run: _TrialRun, source: TrialSource) -> None:
        """Assigns a trial to an idle worker, or to a new one."""
        busy = [other.worker for other in self._runs]
        idle = [worker for worker in self._workers if worker not in busy]
        for worker in [worker for worker in idle if not worker.alive()]:
            idle.remove(worker)
            self._remove_worker(worker)
        run.worker = idle[0] if idle else self._start_worker()
        run.worker.send(run.spec)
        _report_location(run, source)

    def _start_worker(self) -> WorkerProcess:
        slot = min(self._slots - {worker.slot for worker in self._workers})
        level = _log.getEffectiveLevel()
        worker = WorkerProcess(dataclasses.replace(self._setup, slot=slot, log_level=level))
        self._workers.append(worker)
        return worker

    def _receive_message(self, worker: WorkerProcess, source: TrialSource) -> None:
        """Handles one message of a worker, or its end."""
        run = next((run for run in self._runs if run.worker is worker), None)
        try:
            kind, value = worker.receive()
        except EOFError:
            self._handle_worker_exit(worker, run, source)
            return
        if kind == "log":
            _log.log(*value)
        elif kind == "ready":
            worker.device = value
            if run is not None:
                _report_location(run, source)
        elif run is not None:
            self._handle_message(kind, value, worker, run, source)

    def _handle_message(
        self, kind: str, value: Any, worker: WorkerProcess, run: _TrialRun, source: TrialSource
    ) -> None:
        if kind == "epoch":
            worker.send(self._decide(run, value, source))
        elif value.out_of_memory and self._shares_device(worker):
            self._requeue(worker, run, source, f"out of memory on {worker.device or 'device'}")
        elif kind == "setup_failed":
            self._handle_setup_failure(worker, run, source, f"a worker could not be set up ({value.error})")
        else:
            self._finish(run, value, worker, source)

    def _decide(self, run: _TrialRun, result: EpochResult, source: TrialSource) -> str | None:
        """Reports each epoch to the source once; a retried trial repeats epochs that the source has received."""
        if result.epoch not in run.decisions:
            run.decisions[result.epoch] = (result, source.on_epoch(run.spec, result))
        return run.decisions[result.epoch][1]

    def _finish(self, run: _TrialRun, outcome: TrialOutcome, worker: WorkerProcess, source: TrialSource) -> None:
        self._runs.remove(run)
        source.on_done(run.spec, _with_worker_facts(outcome, worker.slot, worker.device, run.lost_workers))

    def _handle_setup_failure(self, worker: WorkerProcess, run: _TrialRun, source: TrialSource, reason: str) -> None:
        """Removes a worker's slot if other workers could be set up: on a faulty GPU, trial after trial would fail."""
        if any(other.device is not None for other in self._workers if other is not worker):
            self._requeue(worker, run, source, reason)
        else:
            self._handle_worker_exit(worker, run, source, reason)

    def _handle_worker_exit(
        self, worker: WorkerProcess, run: _TrialRun | None, source: TrialSource, reason: str = ""
    ) -> None:
        """Handles the end of a worker; its trial is retried once and fails the second time."""
        code = self._remove_worker(worker)
        if run is None:
            return
        reason = reason or f"worker process died (exit code {code})"
        run.lost_workers.append({**_location_facts(worker.device), "reason": reason})
        if len(run.lost_workers) == 1:
            _log.warning("%s: %s; running it again", run.spec.key, reason)
            self._assign_worker(run, source)
        else:
            self._finish(run, TrialOutcome(curve=run.curve, error=reason), worker, source)

    def _remove_worker(self, worker: WorkerProcess) -> int:
        """Removes a worker that has ended; returns its exit code."""
        self._workers.remove(worker)
        return join_ended_worker(worker)

    def _shares_device(self, worker: WorkerProcess) -> bool:
        """Returns whether other workers may occupy the memory that this one lacked."""
        others = [other for other in self._workers if other is not worker]
        return any(worker.device is None or other.device in (None, worker.device) for other in others)

    def _requeue(self, worker: WorkerProcess, run: _TrialRun, source: TrialSource, reason: str) -> None:
        """Gives a trial back to the source and removes its worker, which frees memory for the others."""
        self._workers.remove(worker)
        self._slots.remove(worker.slot)
        self._runs.remove(run)
        worker.terminate()
        join_workers([worker])
        _log.warning("%s: concurrent trials reduced to %d", reason, len(self._slots))
        source.on_abandoned(run.spec)

    def _abandon_all(self, source: TrialSource) -> None:
        """Abandons the running trials and ends all workers."""
        runs, self._runs = self._runs, []
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.terminate()
        try:
            for run in runs:
                _notify_abandoned(source, run.spec)
        finally:
            join_workers(workers)


def _notify_abandoned(source: TrialSource, spec: TrialSpec) -> None:
    """Reports an abandoned trial to the source; logs an error of the source, so that it hides no earlier error."""
    try:
        source.on_abandoned(spec)
    except Exception as error:
        _log.warning("%s could not be marked as abandoned: %s", spec.key, error)


def _report_location(run: _TrialRun, source: TrialSource) -> None:
    if run.worker is not None and run.worker.device is not None:
        source.on_placed(run.spec, _location_facts(run.worker.device))


def _location_facts(device: str | None) -> dict[str, Any]:
    return local_worker_location(device or "").facts()


def _with_worker_facts(
    outcome: TrialOutcome, slot: int, device: str | None, lost_workers: Sequence[Mapping[str, Any]] = ()
) -> TrialOutcome:
    facts = {**_location_facts(device), **outcome.facts, "worker": slot}
    return dataclasses.replace(outcome, facts={**facts, "lost_workers": list(lost_workers)} if lost_workers else facts)
