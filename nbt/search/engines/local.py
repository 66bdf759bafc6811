"""LocalEngine: runs jobs on this machine, in this process or in worker processes that outlive their trials."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from nbt.errors import check_counts
from nbt.search.engines.base import JobSource
from nbt.search.engines.interrupts import InterruptGuard
from nbt.search.engines.messages import local_place
from nbt.search.engines.pool import WorkerProcess, exit_code, join_all
from nbt.search.engines.worker import TRIAL_RUNNER, Runner, Setup
from nbt.training.results import EpochResult, TrialJob, TrialOutcome

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")


class LocalEngine:
    """Runs the jobs of a source on this machine.

    With one worker they run in this process; with more, in processes that are started when there is work for them,
    keep their tools between jobs and end with the engine or with this process. Ctrl-C and SIGTERM abandon the running
    jobs and raise KeyboardInterrupt, never in the middle of a call to the source. A job whose worker process dies is
    run once more by another one (from its checkpoint, if it has one); the source notices nothing, unless that one
    dies, too. Where several workers share a device and it runs out of memory, the job is put back and one worker
    fewer goes on.

    Args:
        task: What is fine-tuned on.
        workers: Jobs at a time, 1 or more.
        device: "cpu", "cuda", "cuda:1" for all workers; all GPUs in turn, or the CPU where there is none, when None.
        cache_bytes: Memory bound of each worker's prefix cache; a share of what is free when None.
        runner: "module:name" of what makes a worker's `Runner`; another one replaces real training, in tests or to
            replay recorded curves. It is called with `(task, slot=, workers=, device=, cache_bytes=)`.

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
    ) -> None:
        check_counts(workers=workers)
        setup = Setup(task, workers=workers, device=device, cache_bytes=cache_bytes, runner=runner)
        self._crew: _Crew = _InProcess(setup) if workers == 1 else _Processes(setup)

    def run(self, source: JobSource) -> None:
        """Runs jobs until the source has none left.

        Raises:
            KeyboardInterrupt: The running jobs were abandoned.
            Exception: Whatever the source raises; the running jobs were abandoned.
        """
        with InterruptGuard() as guard:
            self._crew.run(source, guard)

    def close(self) -> None:
        """Ends the workers and frees what they hold; may be called twice."""
        self._crew.close()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Crew(Protocol):
    def run(self, source: JobSource, guard: InterruptGuard) -> None: ...

    def close(self) -> None: ...


class _SourceFailed(BaseException):
    """Carries an error of the source through a runner, which takes every `Exception` for the trial's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _InProcess:
    """One worker: this process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._runner: Runner | None = None

    def run(self, source: JobSource, guard: InterruptGuard) -> None:
        job: TrialJob | None = None
        try:
            while True:
                with guard.hold():
                    job = source.next_job()
                if job is None:
                    return
                outcome = self._run_job(job, source, guard)
                with guard.hold():
                    done, job = job, None
                    source.on_done(done, outcome)
        except BaseException:
            if job is not None:
                _abandon(source, job)
            raise

    def _run_job(self, job: TrialJob, source: JobSource, guard: InterruptGuard) -> TrialOutcome:
        def on_epoch(result: EpochResult) -> str | None:
            try:
                with guard.hold():
                    return source.on_epoch(job, result)
            except Exception as error:
                raise _SourceFailed(error) from error

        if self._runner is None:
            self._runner = self._setup.open_runner()
        device = self._runner.device
        with guard.hold():
            source.on_place(job, local_place(device).facts())
        try:
            return _at_worker(self._runner.run(job, on_epoch), 0, device)
        except _SourceFailed as failure:
            raise failure.error from None

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


@dataclass(eq=False)
class _Run:
    """A job on its way: who runs it, what its worker said and was answered, and the workers that it has cost."""

    job: TrialJob
    worker: WorkerProcess | None = None
    said: dict[int, tuple[EpochResult, str | None]] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)

    @property
    def curve(self) -> tuple[EpochResult, ...]:
        return tuple(self.said[epoch][0] for epoch in sorted(self.said))


class _Processes:
    """Several workers: one process each. Only one thread, the caller's, touches the source and the workers."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._slots = set(range(setup.workers))
        self._workers: list[WorkerProcess] = []
        self._runs: list[_Run] = []

    def run(self, source: JobSource, guard: InterruptGuard) -> None:
        try:
            while True:
                with guard.hold():
                    self._hand_out(source)
                if not self._runs:
                    return
                ready = wait([worker.connection for worker in self._workers])
                for worker in [worker for worker in self._workers if worker.connection in ready]:
                    with guard.hold():
                        self._listen(worker, source)
        except BaseException:
            self._give_up(source)
            raise

    def close(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.dismiss()
        join_all(workers)

    def _hand_out(self, source: JobSource) -> None:
        """Starts as many jobs as there are slots and jobs."""
        while len(self._runs) < len(self._slots):
            job = source.next_job()
            if job is None:
                return
            run = _Run(job)
            self._runs.append(run)
            self._staff(run, source)

    def _staff(self, run: _Run, source: JobSource) -> None:
        """Gives a job to an idle worker, or to a new one."""
        busy = [other.worker for other in self._runs]
        idle = [worker for worker in self._workers if worker not in busy]
        for worker in [worker for worker in idle if not worker.alive()]:
            idle.remove(worker)
            self._clear_away(worker)
        run.worker = idle[0] if idle else self._start_worker()
        run.worker.send(run.job)
        _tell_place(run, source)

    def _start_worker(self) -> WorkerProcess:
        slot = min(self._slots - {worker.slot for worker in self._workers})
        level = _log.getEffectiveLevel()
        worker = WorkerProcess(dataclasses.replace(self._setup, slot=slot, log_level=level))
        self._workers.append(worker)
        return worker

    def _listen(self, worker: WorkerProcess, source: JobSource) -> None:
        """Takes one message of a worker, or its end."""
        run = next((run for run in self._runs if run.worker is worker), None)
        try:
            kind, value = worker.receive()
        except EOFError:
            self._bury(worker, run, source)
            return
        if kind == "log":
            _log.log(*value)
        elif kind == "ready":
            worker.device = value
            if run is not None:
                _tell_place(run, source)
        elif run is not None:
            self._take(kind, value, worker, run, source)

    def _take(self, kind: str, value: Any, worker: WorkerProcess, run: _Run, source: JobSource) -> None:
        if kind == "epoch":
            worker.send(self._answer(run, value, source))
        elif value.out_of_memory and self._shares_device(worker):
            self._put_back(worker, run, source, f"out of memory on {worker.device or 'device'}")
        elif kind == "broken":
            self._take_broken(worker, run, source, f"a worker could not be set up ({value.error})")
        else:
            self._finish(run, value, worker, source)

    def _answer(self, run: _Run, result: EpochResult, source: JobSource) -> str | None:
        """Asks the source once for every epoch: a job that runs again repeats epochs that it has heard of."""
        if result.epoch not in run.said:
            run.said[result.epoch] = (result, source.on_epoch(run.job, result))
        return run.said[result.epoch][1]

    def _finish(self, run: _Run, outcome: TrialOutcome, worker: WorkerProcess, source: JobSource) -> None:
        self._runs.remove(run)
        source.on_done(run.job, _at_worker(outcome, worker.slot, worker.device, run.lost))

    def _take_broken(self, worker: WorkerProcess, run: _Run, source: JobSource, reason: str) -> None:
        """Does without a worker that could not be set up where others could: a broken GPU would fail job after job."""
        if any(other.device is not None for other in self._workers if other is not worker):
            self._put_back(worker, run, source, reason)
        else:
            self._bury(worker, run, source, reason)

    def _bury(self, worker: WorkerProcess, run: _Run | None, source: JobSource, reason: str = "") -> None:
        """Takes the end of a worker; its job gets one more chance."""
        code = self._clear_away(worker)
        if run is None:
            return
        reason = reason or f"worker process died (exit code {code})"
        run.lost.append({**_where(worker.device), "reason": reason})
        if len(run.lost) == 1:
            _log.warning("%s: %s; running it again", run.job.key, reason)
            self._staff(run, source)
        else:
            self._finish(run, TrialOutcome(curve=run.curve, error=reason), worker, source)

    def _clear_away(self, worker: WorkerProcess) -> int:
        self._workers.remove(worker)
        return exit_code(worker)

    def _shares_device(self, worker: WorkerProcess) -> bool:
        """Tells whether other workers may hold the memory that this one lacked."""
        others = [other for other in self._workers if other is not worker]
        return any(worker.device is None or other.device in (None, worker.device) for other in others)

    def _put_back(self, worker: WorkerProcess, run: _Run, source: JobSource, why: str) -> None:
        """Gives a job back to the source, and its worker's memory to the others."""
        self._workers.remove(worker)
        self._slots.remove(worker.slot)
        self._runs.remove(run)
        worker.terminate()
        join_all([worker])
        _log.warning("%s: going on with %d at a time", why, len(self._slots))
        source.on_abandoned(run.job)

    def _give_up(self, source: JobSource) -> None:
        """Abandons what runs and ends all workers."""
        runs, self._runs = self._runs, []
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.terminate()
        try:
            for run in runs:
                _abandon(source, run.job)
        finally:
            join_all(workers)


def _abandon(source: JobSource, job: TrialJob) -> None:
    """Tells the source, on the way out with another error that must not be hidden by one of its own."""
    try:
        source.on_abandoned(job)
    except Exception as error:
        _log.warning("%s could not be marked as abandoned: %s", job.key, error)


def _tell_place(run: _Run, source: JobSource) -> None:
    if run.worker is not None and run.worker.device is not None:
        source.on_place(run.job, _where(run.worker.device))


def _where(device: str | None) -> dict[str, Any]:
    return local_place(device or "").facts()


def _at_worker(
    outcome: TrialOutcome, slot: int, device: str | None, lost: Sequence[Mapping[str, Any]] = ()
) -> TrialOutcome:
    facts = {**_where(device), **outcome.facts, "worker": slot}
    return dataclasses.replace(outcome, facts={**facts, "lost_workers": list(lost)} if lost else facts)
