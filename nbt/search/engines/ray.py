"""RayEngine: runs jobs on a Ray cluster, or on a Ray of this machine.

Ray Tune runs on a thread of its own for as long as the engine lives, so that its actors and their tools serve the
search, the finals and the last training. Whenever it needs a word from the brain it puts a request on the desk and
waits; the caller's thread, the only one that touches the source, answers. So a source needs no locks, Ctrl-C comes
between two of its calls and not inside one, and an error of it reaches the caller as it was raised.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from nbt.errors import NbtError, check_counts
from nbt.search.engines.base import JobSource
from nbt.search.engines.books import Answer, Books
from nbt.search.engines.desk import Desk, Request
from nbt.search.engines.held_folder import HeldFolder
from nbt.search.engines.interrupts import InterruptGuard
from nbt.search.engines.last_words import LastWords
from nbt.search.engines.packing import Packing
from nbt.search.engines.parcel import nbytes, pack
from nbt.search.engines.ray_cluster import Cluster, RayOptions, connect
from nbt.search.engines.ray_tune import run_tune
from nbt.search.engines.worker import TRIAL_RUNNER

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")

# Tune that ended by itself so often without a single message between is beyond help.
_BREAKS = 3
_CLOSE_SECONDS = 30.0
# Without a connection Tune cannot end anything; its thread ends with this process.
_LAST_SECONDS = 3.0
# About half of what a driver with one core has been measured to take (studies/bench_engines.py checkpoints).
CHECKPOINT_BYTES_PER_SECOND = 100e6
_KEPT = "everything is kept: the same command resumes, also with --engine local"


class RayEngine:
    """Runs the jobs of a source on Ray.

    The task goes to each node once, through Ray's object store; the checkpoints and the exported model come back
    through it, so that nodes need no common folder. A job whose worker dies is run once more, one whose node is lost as
    often as it takes, from the newest checkpoint that arrived here. Where several workers share a device and it runs
    out of memory, the job is put back and one worker fewer goes on.

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
        check_counts(workers=workers)
        options = options or RayOptions()
        packed = pack(task)
        self._cluster = cluster or connect(options, object_bytes=nbytes(packed))
        resources = self._cluster.resources(options, workers)
        self._setup = {
            "device": device,
            "cache_bytes": cache_bytes,
            "runner": runner,
            "at_a_time": workers,
            "checkpoint_bytes_per_second": checkpoint_bytes_per_second,
        }
        auto = options.gpus_per_trial == "auto"
        self._workers, self._parcel = workers, self._cluster.put(packed)
        self._books = Books(workers, Packing(resources, measured=auto, gpus=self._cluster.gpus))
        self._desk = Desk()
        self._last_words = LastWords(f"error: the search was killed, or ended by Ray; {_KEPT}")
        self._watch = self._cluster.watch(lambda why: self._desk.post(Request("lost", (why,))))
        self._folder = HeldFolder("nbt-tune-")
        self._thread: threading.Thread | None = None
        self._breaks = 0
        self._closed = False

    def run(self, source: JobSource) -> None:
        """Runs jobs until the source has none left.

        Raises:
            KeyboardInterrupt: The running jobs were abandoned.
            NbtError: Ray cannot go on; the running jobs were abandoned.
            Exception: Whatever the source raises; the running jobs were abandoned.
        """
        with InterruptGuard() as guard:
            try:
                self._books.open(source)
                while True:
                    with guard.hold():
                        self._start_tune()
                    self._desk.wait()
                    with guard.hold():
                        self._answer_all()
                    if self._books.over:
                        return
            except BaseException:
                self._books.give_up()
                self._desk.give_up_running()
                raise

    def close(self) -> None:
        """Ends the workers and frees what they hold; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        self._desk.close()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS if self._cluster.lost else _CLOSE_SECONDS)
        self._parcel = None
        self._cluster.close()
        self._folder.close()
        self._last_words.close()

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
                run_tune(self._desk, self._parcel, setup, at_a_time=self._workers, folder=self._folder.path)
            except Exception as found:
                error = found
            self._desk.post(Request("ended", (error,)))

        self._thread = threading.Thread(target=run, name="nbt-tune", daemon=True)
        self._thread.start()

    def _answer_all(self) -> None:
        """Answers what lies on the desk, as long as there is anything to do."""
        while not self._books.over and (request := self._desk.take()) is not None:
            try:
                self._answer(request)
            finally:
                if not request.answered:
                    request.reply(Answer(over=True) if request.kind == "hear" else None)

    def _answer(self, request: Request) -> None:
        if request.kind == "order":
            order = self._books.next_order(*request.arguments)
            if order is None and self._books.over:
                self._desk.put_back(request)  # Tune waits for the next source without asking every second
            else:
                request.reply(order)
        elif request.kind == "hear":
            self._breaks = 0
            request.reply(self._books.hear(*request.arguments))
        elif request.kind == "lose":
            attempt, reason, node_lost = request.arguments
            self._books.lose(attempt, reason, node_lost=node_lost)
        elif request.kind == "lost":
            raise NbtError(f"the connection to Ray is lost ({request.arguments[0]}); {_KEPT}")
        else:
            self._take_end(*request.arguments)

    def _take_end(self, error: Exception | None) -> None:
        """Takes the end of Ray Tune, which should not end by itself."""
        self._thread = None
        self._breaks += 1
        text = " ".join(str(error).split())[-300:]
        if self._breaks >= _BREAKS or not self._cluster.alive():
            raise NbtError(f"Ray cannot go on ({text}); {_KEPT}")
        self._books.lose_all(f"Ray Tune ended ({text})")
