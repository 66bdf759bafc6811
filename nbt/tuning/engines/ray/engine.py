"""The Ray engine: runs trials on a Ray cluster, or on a Ray instance of this machine.

Ray Tune runs in a separate thread for the lifetime of the engine, so that its actors and their resources are reused in
the search, the finals and the retraining. When Tune needs a decision, its thread adds a request to the request queue
and waits; the caller's thread, the only one that accesses the source, replies. A source therefore needs no locks,
Ctrl-C takes effect between two calls to it, never during one, and its errors reach the caller unchanged.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from nbt.errors import NbtError, require_positive
from nbt.tuning.engines.base import ClosingEngine, TrialSource
from nbt.tuning.engines.cpu_threads import single_threaded
from nbt.tuning.engines.gpu_packing import GpuPacking
from nbt.tuning.engines.interrupts import InterruptGuard
from nbt.tuning.engines.locked_directory import LockedDirectory
from nbt.tuning.engines.protocol import TrialAssignment
from nbt.tuning.engines.ray.cluster import Cluster, connect
from nbt.tuning.engines.ray.exit_notice import ExitNotice
from nbt.tuning.engines.ray.file_transfer import read_checkpoint, store_files
from nbt.tuning.engines.ray.options import RayOptions
from nbt.tuning.engines.ray.request_queue import Request, RequestQueue
from nbt.tuning.engines.ray.tune import run_tune
from nbt.tuning.engines.ray.worker.task_serialization import shared_nbytes, to_shared_arrays
from nbt.tuning.engines.supervisor import RunDecision, TrialSupervisor
from nbt.tuning.engines.worker import TRIAL_RUNNER

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")

# The engine fails after this many ends of Tune without a message of a worker in between.
_MAX_TUNE_FAILURES = 3
_CLOSE_SECONDS = 30.0
# Without a connection Tune cannot end its actors; its thread ends with this process.
_DISCONNECTED_CLOSE_SECONDS = 3.0
# About half of the rate measured for a driver with one core (studies/bench_engines.py checkpoints).
CHECKPOINT_BYTES_PER_SECOND = 100e6
_RESUME_HINT = "all results are saved; run the same command again to resume, also with --engine local"


class RayEngine(ClosingEngine):
    """Runs the trials of a source on Ray.

    The task is sent to each node once, through Ray's object store; checkpoints and the exported model return through
    Ray, so that the nodes need no shared folder. A retried trial continues from the newest checkpoint that the driver
    has received; `nbt.tuning.engines.supervisor` decides about retries.

    Args:
        task: The task to fine-tune on.
        workers: Number of concurrent trials, 1 or more.
        options: The Ray cluster and the resources per trial.
        cluster: An existing connection; created from `options` when None.
        device: As in `LocalEngine`; the GPU that Ray assigns, or the CPU without one, when None.
        cache_bytes: As in `LocalEngine`.
        runner: As in `LocalEngine`.
        checkpoint_bytes_per_second: Maximum rate at which all workers together send checkpoints to the driver. With a
            lower rate each worker sends fewer checkpoints, and a trial whose worker is lost repeats more epochs.

    Raises:
        UsageError: Ray cannot be used, no cluster responds at the address, or no node has the resources of a trial.
        NbtError: Ray cannot be started on this machine.
    """

    def __init__(
        self,
        task: Task,
        *,
        workers: int = 1,
        options: RayOptions | None = None,
        cluster: Cluster | None = None,
        device: str | None = None,
        cache_bytes: int | None = None,
        runner: str = TRIAL_RUNNER,
        checkpoint_bytes_per_second: float = CHECKPOINT_BYTES_PER_SECOND,
    ) -> None:
        require_positive(workers=workers)
        options = options or RayOptions()
        shared_task = to_shared_arrays(task)
        self._cluster = cluster or connect(options, object_bytes=shared_nbytes(shared_task))
        resources = self._cluster.resources(options, workers)
        self._worker_options = {
            "device": device,
            "cache_bytes": cache_bytes,
            "runner": runner,
            "max_concurrent": workers,
            "checkpoint_bytes_per_second": checkpoint_bytes_per_second,
        }
        self._workers, self._task_ref = workers, self._cluster.put(shared_task)
        packing = GpuPacking(resources, measure_memory=options.gpus_per_trial == "auto", gpus=self._cluster.gpus)
        self._supervisor = TrialSupervisor(workers, packing)
        self._request_queue = RequestQueue()
        self._exit_notice = ExitNotice(f"error: the search was killed, or ended by Ray; {_RESUME_HINT}")
        self._connection_monitor = self._cluster.start_connection_monitor(
            lambda reason: self._request_queue.put(Request("connection_lost", (reason,)))
        )
        self._folder = LockedDirectory("nbt-tune-")
        self._thread: threading.Thread | None = None
        self._tune_failures = 0
        self._closed = False

    def start_workers(self) -> None:
        """Does nothing: Ray Tune starts workers together with their trials."""

    def run(self, source: TrialSource) -> None:
        """Runs trials until the source has none left.

        Raises:
            KeyboardInterrupt: The running trials were abandoned.
            NbtError: Ray has failed; the running trials were abandoned.
            Exception: The source raised it; the running trials were abandoned.
        """
        with single_threaded(), InterruptGuard() as guard:
            try:
                self._supervisor.start(source)
                while True:
                    with guard.deferred():
                        self._start_tune()
                    self._request_queue.wait()
                    with guard.deferred():
                        self._process_requests()
                    if self._supervisor.finished:
                        return
            except BaseException:
                self._supervisor.abandon_all()
                self._request_queue.abandon_running()
                raise

    def close(self) -> None:
        """Ends the workers and frees their resources; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._connection_monitor.close()
        self._request_queue.close()
        if self._thread is not None:
            self._thread.join(_DISCONNECTED_CLOSE_SECONDS if self._cluster.lost else _CLOSE_SECONDS)
        self._task_ref = None
        self._cluster.close()
        self._folder.close()
        self._exit_notice.close()

    def _start_tune(self) -> None:
        """Starts Ray Tune in its thread, unless it is running."""
        if self._thread is not None:
            return
        worker_options = {**self._worker_options, "log_level": _log.getEffectiveLevel()}

        def run() -> None:
            error: Exception | None = None
            try:
                run_tune(
                    self._request_queue,
                    self._task_ref,
                    worker_options,
                    max_concurrent=self._workers,
                    folder=self._folder.path,
                )
            except Exception as tune_error:
                error = tune_error
            self._request_queue.put(Request("tune_ended", (error,)))

        self._thread = threading.Thread(target=run, name="nbt-tune", daemon=True)
        self._thread.start()

    def _process_requests(self) -> None:
        """Replies to the pending requests until the queue is empty or the source is finished."""
        for request in iter(self._request_queue.get_nowait, None):
            try:
                reply = self._process_request(request)
            except BaseException:
                request.reply.set_result(None)  # otherwise Tune would wait forever
                raise
            finished = self._supervisor.finished
            if finished and request.kind == "assignment":
                self._request_queue.requeue(request)  # Tune waits for the next source instead of polling
            else:
                request.reply.set_result(reply)
            if finished:
                return

    def _process_request(self, request: Request) -> TrialAssignment | RunDecision | None:
        if request.kind == "assignment":
            assignment = self._supervisor.next_assignment(*request.arguments)
            if assignment is not None:
                assignment.checkpoint = read_checkpoint(assignment.spec)
            return assignment
        if request.kind == "message":
            self._tune_failures = 0
            attempt, message = request.arguments
            spec = self._supervisor.running_spec(attempt)
            if spec is not None:
                store_files(spec, message)
            return self._supervisor.handle_message(attempt, message)
        if request.kind == "worker_lost":
            attempt, reason, node_lost = request.arguments
            self._supervisor.handle_worker_lost(attempt, reason, node_lost=node_lost)
        elif request.kind == "connection_lost":
            raise NbtError(f"the connection to Ray was lost ({request.arguments[0]}); {_RESUME_HINT}")
        else:
            self._handle_tune_end(*request.arguments)
        return None

    def _handle_tune_end(self, error: Exception | None) -> None:
        """Handles an unexpected end of Ray Tune: the running trials are retried if Ray still responds."""
        self._thread = None
        self._tune_failures += 1
        text = " ".join(str(error).split())[-300:]
        if self._tune_failures >= _MAX_TUNE_FAILURES or not self._cluster.alive():
            raise NbtError(f"Ray cannot continue ({text}); {_RESUME_HINT}")
        self._supervisor.handle_all_workers_lost(f"Ray Tune ended ({text})")
