"""The driver's side of worker processes: starting them, talking to them, ending them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.connection import Pipe
from typing import Any

from nbt.tuning.engines.worker import WorkerSetup, send

# How long a worker may take to close its caches before it is killed.
_GRACE_SECONDS = 5.0


class WorkerProcess:
    """A fresh Python process that serves specs, see `nbt.tuning.engines.worker`.

    It is a plain subprocess rather than a `multiprocessing.Process`, which would run the user's script again in every
    worker and cannot start from a notebook cell or a script on stdin. Its stdin is a pipe that only this process
    holds: when this process is gone, even killed, the worker notices and ends. Temporary files go to a folder of its
    own that is removed with it, however it ends.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.slot = setup.slot
        self.device: str | None = None
        self.connection, worker_end = Pipe()
        self._folder = tempfile.mkdtemp(prefix="nbt-worker-")
        self._process = subprocess.Popen(
            # -P: what is importable is decided by PYTHONPATH below, not by the working directory.
            [sys.executable, "-P", "-m", "nbt.tuning.engines.worker", str(worker_end.fileno()), self._folder],
            stdin=subprocess.PIPE,
            stdout=2,  # stdout belongs to the driver's results
            pass_fds=[worker_end.fileno()],
            env=_worker_environment(setup.workers, self._folder),
            start_new_session=True,  # the terminal's Ctrl-C goes to the driver alone
        )
        worker_end.close()
        self.send(setup)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Sends a message. To a dead worker nothing is sent: its connection reads as ended soon enough."""
        with contextlib.suppress(ConnectionError):
            send(self.connection, message)

    def receive(self) -> tuple[str, Any]:
        """Returns the next message.

        Raises:
            EOFError: The worker has ended.
        """
        try:
            message: tuple[str, Any] = self.connection.recv()
        except ConnectionError as error:
            raise EOFError from error
        return message

    def alive(self) -> bool:
        """Tells whether the process runs."""
        return self._process.poll() is None

    def request_exit(self) -> None:
        """Asks an idle worker to end after cleaning up."""
        self.send(None)

    def terminate(self) -> None:
        """Tells a worker to give up what it does and end."""
        self._process.terminate()

    def join(self, deadline: float) -> int:
        """Waits for the end of the process, at the deadline kills it, and removes what it left.

        Args:
            deadline: Of `time.monotonic`.

        Returns:
            Its exit code; negative for a signal.
        """
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = -9
        finally:
            self._process.kill()
            self._process.wait()
            self._close()
        return code

    def _close(self) -> None:
        self.connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def join_workers(workers: Iterable[WorkerProcess]) -> None:
    """Waits for workers that were told to end, all against the same deadline."""
    deadline = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        worker.join(deadline)


def exit_code(worker: WorkerProcess) -> int:
    """Returns the exit code of a worker whose connection has ended, and cleans up after it."""
    return worker.join(time.monotonic() + _GRACE_SECONDS)


def _worker_environment(workers: int, folder: str) -> dict[str, str]:
    """Returns the environment of a worker: the driver's, its share of the cores, its own temporary folder."""
    threads = max(1, usable_cores() // workers)
    requested_threads = os.environ.get("OMP_NUM_THREADS", "")
    if requested_threads.isdecimal() and int(requested_threads) > 0:
        threads = min(threads, int(requested_threads))
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - joined as text
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "TMPDIR": folder, "PYTHONPATH": path}


def usable_cores() -> int:
    """Returns how many CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
