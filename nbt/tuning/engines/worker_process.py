"""The driver's side of worker processes: starting, communicating and ending."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Pipe

from nbt.machine.cores import usable_cores
from nbt.tuning.engines.cpu_threads import limit_threads, thread_environment
from nbt.tuning.engines.locked_directory import LockedDirectory
from nbt.tuning.engines.protocol import WorkerLocation, WorkerMessage
from nbt.tuning.engines.worker import WorkerSetup, send

_MODULE = "nbt.tuning.engines.worker"
# Time for a worker to close its caches before it is killed.
_GRACE_SECONDS = 5.0


class WorkerProcess:
    """A separate Python process that runs trials; see `nbt.tuning.engines.worker`.

    It is a plain subprocess rather than a `multiprocessing.Process`, which would run the user's script again in every
    worker and cannot start from a notebook cell or a script on stdin. Its stdin is a pipe that only this process
    holds, so that the worker ends with this process even if this process is killed. Its temporary files are in a
    folder of its own, which is removed when the worker ends, or by the next search if this process was killed.

    Args:
        workers: Number of workers on this machine, which share its cores.
        modules: Modules that the process imports before it is set up.

    Attributes:
        workers: Number of workers on this machine.
        slot: Number of the worker, 0 ... workers - 1.
        resources: Resources that its trials request.
        location: Location of the worker; None until the worker is ready.
        attempt: Name of the attempt that the worker runs; None while it is idle.
        connection: This process's end of the pipe.
    """

    def __init__(self, workers: int, modules: Sequence[str] = ()) -> None:
        self.workers, self.slot = workers, 0
        self.resources: Mapping[str, float] = {}
        self.location: WorkerLocation | None = None
        self.attempt: str | None = None
        self.connection, worker_end = Pipe()
        self._folder = LockedDirectory("nbt-worker-")
        try:
            self._process = subprocess.Popen(
                # -P: imports are resolved with the PYTHONPATH set below, not from the working directory.
                [sys.executable, "-P", "-m", _MODULE, str(worker_end.fileno()), str(self._folder.path), *modules],
                stdin=subprocess.PIPE,
                stdout=2,  # the driver prints results on stdout
                pass_fds=[worker_end.fileno()],
                env=_worker_environment(workers, str(self._folder.path)),
                start_new_session=True,  # only the driver receives the terminal's Ctrl-C
            )
        except OSError:
            self._folder.close()
            raise
        finally:
            worker_end.close()

    def set_up(self, setup: WorkerSetup, resources: Mapping[str, float]) -> None:
        """Sends what the worker needs before its first trial.

        Args:
            setup: What it needs; its number of workers is that of the process.
            resources: Resources that its trials request.
        """
        self.slot, self.resources = setup.slot, resources
        self.send(setup)

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Sends a message. Nothing happens if the worker has ended; the next `receive` reports that."""
        with contextlib.suppress(ConnectionError):
            send(self.connection, message)

    def receive(self) -> WorkerMessage:
        """Returns the next message.

        Raises:
            EOFError: The worker has ended.
        """
        try:
            message: WorkerMessage = self.connection.recv()
        except ConnectionError as error:
            raise EOFError from error
        return message

    def alive(self) -> bool:
        """Returns whether the process is running."""
        return self._process.poll() is None

    def request_exit(self) -> None:
        """Requests that an idle worker clean up and end."""
        self.send(None)

    def terminate(self) -> None:
        """Ends a worker and abandons its trial."""
        self._process.terminate()

    def join(self, deadline: float) -> int:
        """Waits for the end of the process, kills it at the deadline and removes its temporary files.

        Args:
            deadline: Time of `time.monotonic`, in seconds.

        Returns:
            The exit code; the negative signal number if a signal ended the process.
        """
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = -9
        finally:
            self._process.kill()
            self._process.communicate()  # waits, and closes its stdin
            self.connection.close()
            self._folder.close()
        return code


def join_workers(workers: Iterable[WorkerProcess]) -> list[int]:
    """Waits for workers that end, with one common deadline; returns their exit codes as `WorkerProcess.join` does."""
    deadline = time.monotonic() + _GRACE_SECONDS
    return [worker.join(deadline) for worker in workers]


def _worker_environment(workers: int, folder: str) -> dict[str, str]:
    """Returns the driver's environment with the worker's number of threads, temporary folder and import path."""
    threads = limit_threads(usable_cores() // workers)
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - joined as text
    return {**os.environ, **thread_environment(threads), "TMPDIR": folder, "PYTHONPATH": path}
