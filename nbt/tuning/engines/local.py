"""The local engine: runs trials in this process or in worker processes that are reused from trial to trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbt.errors import require_positive
from nbt.training.results import EpochResult
from nbt.tuning.engines.base import ClosingEngine, Engine, TrialSource
from nbt.tuning.engines.cpu_threads import single_threaded
from nbt.tuning.engines.interrupts import InterruptGuard
from nbt.tuning.engines.process_pool import ProcessPoolEngine
from nbt.tuning.engines.protocol import TrialAssignment, WorkerMessage, local_worker_location
from nbt.tuning.engines.supervisor import RunDecision, TrialSupervisor
from nbt.tuning.engines.worker import TRIAL_RUNNER, Runner, WorkerSetup

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.engines.worker_process import WorkerProcess

_ATTEMPT = "in this process"


class LocalEngine(ClosingEngine):
    """Runs the trials of a source on this machine.

    One worker runs its trials in this process. Several workers are processes of their own, which start on demand, keep
    their resources between trials and end with the engine or with this process. Ctrl-C and SIGTERM abandon the running
    trials and raise KeyboardInterrupt, never during a call to the source. Retries, failures and the number of trials
    per GPU are described in `nbt.tuning.engines.supervisor`.

    Args:
        task: The task to fine-tune on.
        workers: Number of concurrent trials, 1 or more.
        device: "cpu", "cuda", "cuda:1" for all workers; when None, worker i uses GPU i modulo the number of GPUs, or
            the CPU without GPUs.
        cache_bytes: Memory limit of each worker's frozen-feature cache; a share of the free memory when None.
        runner: "module:name" of the class of a worker's `Runner`; another class replaces real training, in tests or to
            replay recorded curves. It is called with `(task, slot=, workers=, device=, cache_bytes=)`,
            and with `shared_folder=` if one is given.
        shared_folder: Folder in which workers on CPUs share frozen features; None keeps them in each worker.
        measure_memory: Whether the number of trials per GPU follows from the memory that trials use, up to `workers`
            trials in total; if False, `workers` trials run until one runs out of memory.
        spares: Processes that were started in advance for so many workers; the engine takes those that it needs out of
            the list. None starts all when they are needed.

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
        measure_memory: bool = False,
        spares: list[WorkerProcess] | None = None,
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
        self._engine: Engine = (
            InProcessEngine(setup) if workers == 1 else ProcessPoolEngine(setup, measure_memory, spares)
        )

    def start_workers(self) -> None:
        """Starts the worker processes in advance; see `nbt.tuning.engines.base.Engine.start_workers`."""
        self._engine.start_workers()

    def run(self, source: TrialSource) -> None:
        """Runs trials until the source has none left.

        Raises:
            KeyboardInterrupt: The running trials were abandoned.
            Exception: The source raised it, or the runner cannot be set up in this process; the running trials were
                abandoned.
        """
        self._engine.run(source)

    def close(self) -> None:
        """Ends the workers and frees their resources; may be called twice."""
        self._engine.close()


class _SourceError(BaseException):
    """Carries an error of the source through a runner, which would treat every `Exception` as the trial's own."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class InProcessEngine:
    """Runs one trial at a time in this process."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._supervisor = TrialSupervisor(1)
        self._runner: Runner | None = None
        self._placed = WorkerMessage()

    def start_workers(self) -> None:
        """Does nothing."""

    def run(self, source: TrialSource) -> None:
        """Runs trials until the source has none left; see `LocalEngine.run`."""
        with single_threaded(trains=True), InterruptGuard() as guard:
            try:
                self._supervisor.start(source)
                while (assignment := self._next_assignment(guard)) is not None:
                    self._run_trial(assignment, guard)
            except BaseException:
                self._supervisor.abandon_all()
                raise

    def close(self) -> None:
        """Closes the runner."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _next_assignment(self, guard: InterruptGuard) -> TrialAssignment | None:
        with guard.deferred():
            return self._supervisor.next_assignment(_ATTEMPT)

    def _run_trial(self, assignment: TrialAssignment, guard: InterruptGuard) -> None:
        def handle(message: WorkerMessage) -> RunDecision:
            with guard.deferred():
                return self._supervisor.handle_message(_ATTEMPT, message)

        def on_epoch(result: EpochResult) -> str | None:
            try:
                return handle(WorkerMessage(epoch=result)).stop_reason
            except Exception as error:
                raise _SourceError(error) from error

        if self._runner is None:
            self._runner = self._setup.open_runner()
            self._placed = WorkerMessage(location=local_worker_location(self._runner.device))
        handle(self._placed)
        try:
            outcome = self._runner.run(assignment.spec, on_epoch)
        except _SourceError as failure:
            raise failure.error from None
        handle(WorkerMessage(outcome=outcome))
