"""RayEngine: runs specs on a Ray cluster, or on a Ray of this machine.

Ray Tune runs on a thread of its own for as long as the engine lives, so that its actors and their tools serve the
search, the finals and the last training. Whenever it needs a word from the controller it puts a request on the request_queue and
waits; the caller's thread, the only one that touches the source, answers. So a source needs no locks, Ctrl-C comes
between two of its calls and not inside one, and an error of it reaches the caller as it was raised.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from nbt.errors import NbtError, require_positive
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.engines.distributed.gpu_packing import GpuPacking
from nbt.tuning.engines.distributed.request_queue import Request, RequestQueue
from nbt.tuning.engines.distributed.supervisor import RunDecision, TrialSupervisor
from nbt.tuning.engines.distributed.task_serialization import nbytes, to_shared_arrays
from nbt.tuning.engines.exit_notice import ExitNotice
from nbt.tuning.engines.interrupts import InterruptGuard
from nbt.tuning.engines.locked_directory import LockedDirectory
from nbt.tuning.engines.ray.cluster import Cluster, RayOptions, connect
from nbt.tuning.engines.ray.tune import run_tune
from nbt.tuning.engines.worker import TRIAL_RUNNER

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")

# Tune that ended by itself so often without a single message between is beyond help.
_MAX_TUNE_FAILURES = 3
_CLOSE_SECONDS = 30.0
# Without a connection Tune cannot end anything; its thread ends with this process.
_DISCONNECTED_CLOSE_SECONDS = 3.0
# About half of what a driver with one core has been measured to take (studies/bench_engines.py checkpoints).
CHECKPOINT_BYTES_PER_SECOND = 100e6
_RESUME_HINT = "everything is kept: the same command resumes, also with --engine local"


class RayEngine:
    """Runs the specs of a source on Ray.

    The task goes to each node once, through Ray's object store; the checkpoints and the exported model come back
    through it, so that nodes need no common folder. A spec whose worker dies is run once more, one whose node is lost as
    often as it takes, from the newest checkpoint that arrived here. Where several workers share a device and it runs
    out of memory, the spec is put back and one worker fewer goes on.

    Args:
        task: What is fine-tuned on.
        workers: Jobs at a time, 1 or more.
        options: Which cluster, and what a trial needs of it.
        cluster: A connection that was made before; made from `options` when None.
        device: As in `LocalEngine`; the GPU that Ray assigns, else the CPU, when None.
        cache_bytes: As in `LocalEngine`.
        runner: As in `LocalEngine`.
        checkpoint_bytes_per_second: What all workers together send here of checkpoints, at most. Where they have more,
            each sends one less often, and a trial whose worker is lost trains more of its epochs again.

    Raises:
        UsageError: Ray cannot be used, the address does not answer, or no node has what a trial needs.
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
        packed = to_shared_arrays(task)
        self._cluster = cluster or connect(options, object_bytes=nbytes(packed))
        resources = self._cluster.resources(options, workers)
        self._setup = {
            "device": device,
            "cache_bytes": cache_bytes,
            "runner": runner,
            "max_concurrent": workers,
            "checkpoint_bytes_per_second": checkpoint_bytes_per_second,
        }
        auto = options.gpus_per_trial == "auto"
        self._workers, self._task_ref = workers, self._cluster.put(packed)
        self._supervisor = TrialSupervisor(workers, GpuPacking(resources, measured=auto, gpus=self._cluster.gpus))
        self._request_queue = RequestQueue()
        self._exit_notice = ExitNotice(f"error: the search was killed, or ended by Ray; {_RESUME_HINT}")
        self._health_monitor = self._cluster.watch(lambda why: self._request_queue.put(Request("lost", (why,))))
        self._folder = LockedDirectory("nbt-tune-")
        self._thread: threading.Thread | None = None
        self._tune_failures = 0
        self._closed = False

    def run(self, source: TrialSource) -> None:
        """Runs specs until the source has none left.

        Raises:
            KeyboardInterrupt: The running specs were abandoned.
            NbtError: Ray cannot go on; the running specs were abandoned.
            Exception: Whatever the source raises; the running specs were abandoned.
        """
        with InterruptGuard() as guard:
            try:
                self._supervisor.open(source)
                while True:
                    with guard.hold():
                        self._start_tune()
                    self._request_queue.wait()
                    with guard.hold():
                        self._process_requests()
                    if self._supervisor.finished:
                        return
            except BaseException:
                self._supervisor.abandon_all()
                self._request_queue.abandon_running()
                raise

    def close(self) -> None:
        """Ends the workers and frees what they hold; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._health_monitor.close()
        self._request_queue.close()
        if self._thread is not None:
            self._thread.join(_DISCONNECTED_CLOSE_SECONDS if self._cluster.lost else _CLOSE_SECONDS)
        self._task_ref = None
        self._cluster.close()
        self._folder.close()
        self._exit_notice.close()

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_tune(self) -> None:
        """Starts Ray Tune where it does not run."""
        if self._thread is not None:
            return
        setup = {**self._setup, "log_level": _log.getEffectiveLevel()}

        def run() -> None:
            error: Exception | None = None
            try:
                run_tune(
                    self._request_queue, self._task_ref, setup, max_concurrent=self._workers, folder=self._folder.path
                )
            except Exception as found:
                error = found
            self._request_queue.put(Request("ended", (error,)))

        self._thread = threading.Thread(target=run, name="nbt-tune", daemon=True)
        self._thread.start()

    def _process_requests(self) -> None:
        """Answers what lies on the request_queue, as long as there is anything to do."""
        while not self._supervisor.finished and (request := self._request_queue.take()) is not None:
            try:
                self._process_request(request)
            finally:
                if not request.answered:
                    request.reply(RunDecision(finished=True) if request.kind == "handle_message" else None)

    def _process_request(self, request: Request) -> None:
        if request.kind == "assignment":
            assignment = self._supervisor.next_assignment(*request.arguments)
            if assignment is None and self._supervisor.finished:
                self._request_queue.requeue_once(request)  # Tune waits for the next source without asking every second
            else:
                request.reply(assignment)
        elif request.kind == "handle_message":
            self._tune_failures = 0
            request.reply(self._supervisor.handle_message(*request.arguments))
        elif request.kind == "handle_worker_lost":
            attempt, reason, node_lost = request.arguments
            self._supervisor.handle_worker_lost(attempt, reason, node_lost=node_lost)
        elif request.kind == "lost":
            raise NbtError(f"the connection to Ray is lost ({request.arguments[0]}); {_RESUME_HINT}")
        else:
            self._handle_tune_end(*request.arguments)

    def _handle_tune_end(self, error: Exception | None) -> None:
        """Takes the end of Ray Tune, which should not end by itself."""
        self._thread = None
        self._tune_failures += 1
        text = " ".join(str(error).split())[-300:]
        if self._tune_failures >= _MAX_TUNE_FAILURES or not self._cluster.alive():
            raise NbtError(f"Ray cannot go on ({text}); {_RESUME_HINT}")
        self._supervisor.handle_all_workers_lost(f"Ray Tune ended ({text})")
