"""Processes of a campaign: `nbt` in a process group of its own, forked from this process or started anew.

A forked process has every library already imported, so that a search takes the seconds of its training. It must be
forked while this process has one thread.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MARKS = "NBT_FAULTS_MARKS"
"""Environment variable with the file in which a search marks the start of its phases."""


class Process:
    """A process of `nbt`.

    Attributes:
        pid: Its ID, which is that of its process group, too.
        folder: Folder of its output and marks.
        code: Exit code; the negative signal number after a signal, None while it runs.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self.folder = pid, folder
        self.code: int | None = None
        self.started = time.time()

    def poll(self) -> int | None:
        """Returns the exit code, None while the process runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float) -> int | None:
        """Waits for the end of the process, and kills its group after so many seconds; returns the exit code."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill_group()
                _, status = os.waitpid(self.pid, 0)
                self.code = os.waitstatus_to_exitcode(status)
                return None
            time.sleep(0.01)
        return self.code

    def send(self, signum: signal.Signals) -> bool:
        """Sends a signal to the process itself; returns whether it was running."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, signum)
        return True

    def send_group(self, signum: signal.Signals) -> bool:
        """Sends a signal to the process group; returns whether the process was running."""
        if self.poll() is not None:
            return False
        os.killpg(self.pid, signum)
        return True

    def kill_group(self) -> None:
        """Ends the process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        return (self.folder / "stderr").read_text(errors="replace")

    @property
    def output(self) -> str:
        """What it has written to stdout."""
        return (self.folder / "stdout").read_text(errors="replace")

    def marks(self) -> list[tuple[str, float]]:
        """Returns the phases that have begun, each with its time in seconds since 1970."""
        lines = (self.folder / "marks").read_text().splitlines()
        return [(phase, float(seconds)) for phase, seconds in (line.split() for line in lines)]

    def wait_for_phase(self, phase: str, seconds: float) -> bool:
        """Waits until a phase has begun; returns False if the process ends before, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while not any(name == phase for name, _ in self.marks()):
            if self.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def start(
    folder: Path,
    logs: Path,
    arguments: tuple[str, ...],
    *,
    environment: Mapping[str, str],
    setup: Callable[[], None] | None = None,
    fork: bool = True,
) -> Process:
    """Starts `nbt`.

    Args:
        folder: Working directory.
        logs: Folder for output and marks; it is created.
        arguments: Arguments of the command line.
        environment: Additional environment variables.
        setup: Called in the forked process before `nbt`.
        fork: Whether the process is forked from this one, rather than started anew.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for name in ("stdout", "stderr", "marks"):
        (logs / name).write_text("")
        (logs / name).chmod(0o666)  # the process may become another user
    sys.stdout.flush()
    sys.stderr.flush()
    if fork and threading.active_count() > 1:
        raise RuntimeError(f"a process with other threads cannot be forked: {threading.enumerate()}")
    pid = os.fork()
    if pid:
        return Process(pid, logs)
    code = 1
    try:
        _enter(folder, logs, {**environment, MARKS: str(logs / "marks")})
        if not fork:
            given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
            os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "studies"), *given])
            os.execv(sys.executable, [sys.executable, "-m", "faults.child", *arguments])
        code = _run(arguments, setup)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _enter(folder: Path, logs: Path, environment: Mapping[str, str]) -> None:
    """Makes this forked process one of a session, folder, environment and output of its own."""
    os.setsid()
    # A campaign in the background ignores Ctrl-C, as would its child processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update(environment)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        opened = os.open(logs / name, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _run(arguments: tuple[str, ...], setup: Callable[[], None] | None) -> int:
    """Runs `nbt` in this forked process, with what the interpreter does at its end; returns the exit code."""
    from faults.child import run_nbt

    code = 1
    try:
        if setup is not None:
            setup()
        run_nbt(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code
