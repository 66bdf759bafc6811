"""Signals to the process of a search, to its workers, or to both."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import ClassVar

from faults.kinds.base import Attempt, Fault
from faults.process import Process
from tests.tuning.engines.processes import find_processes

KILLED = -signal.SIGKILL
# Longest time in seconds from Ctrl-C to the end of the process, on a busy machine and with a report.
_INTERRUPT_SECONDS = 30.0


def workers_of(attempt: Attempt, process: Process) -> list[int]:
    """Returns the worker processes of a search; they have the folder of its cache in their environment."""
    pids = find_processes(str(attempt.search.folder / "cache"))
    return [pid for pid in pids if pid != process.pid]


class KillDriver(Fault):
    """SIGKILL to the process that the user has started; its workers must end by themselves."""

    kind = "SIGKILL of the process"
    workers: ClassVar[tuple[int, ...]] = (1, 1, 1, 2)
    codes: ClassVar[tuple[int, ...]] = (KILLED, 0)
    goal = 10

    def inject(self, attempt: Attempt, process: Process) -> bool:
        return process.send(signal.SIGKILL)


class KillRayDriver(KillDriver):
    """The same with Ray, whose processes must end by themselves, too; the local engine resumes."""

    kind = "SIGKILL of the process, Ray"
    phases = ("trials", "finals", "train")
    workers = (2,)
    engine = "ray"
    goal = 1


class KillWorker(Fault):
    """SIGKILL to one worker process; the search must go on."""

    kind = "SIGKILL of a worker"
    phases = ("trials", "finals", "train")
    workers = (2,)
    codes = (0,)
    goal = 2

    def inject(self, attempt: Attempt, process: Process) -> bool:
        pids = workers_of(attempt, process)
        if process.poll() is not None or not pids:
            return False
        os.kill(attempt.rng.choice(sorted(pids)), signal.SIGKILL)
        return True


class KillAll(Fault):
    """SIGKILL to the process and its workers at once."""

    kind = "SIGKILL of process and workers"
    workers = (2,)
    codes = (KILLED, 0)
    goal = 2

    def inject(self, attempt: Attempt, process: Process) -> bool:
        pids = workers_of(attempt, process)
        was_running = process.send(signal.SIGKILL)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return was_running


class Terminate(Fault):
    """SIGTERM to the process, as a job scheduler sends it."""

    kind = "SIGTERM"
    workers = (1, 1, 2)
    codes = (130, -signal.SIGTERM, 0)
    goal = 2

    def inject(self, attempt: Attempt, process: Process) -> bool:
        return process.send(signal.SIGTERM)


class Interrupt(Fault):
    """Ctrl-C once: the search ends soon, with exit code 130."""

    kind = "SIGINT once"
    workers = (1, 1, 1, 2)
    codes: ClassVar[tuple[int, ...]] = (130, 0)
    goal = 5
    signals: ClassVar[int] = 1

    def __init__(self) -> None:
        self._sent_at = 0.0

    def inject(self, attempt: Attempt, process: Process) -> bool:
        hit = process.send_group(signal.SIGINT)
        self._sent_at = time.monotonic()
        for _ in range(self.signals - 1):
            time.sleep(attempt.rng.uniform(0.0, 0.5))
            process.send_group(signal.SIGINT)
        return hit

    def problems(self, attempt: Attempt, process: Process) -> list[str]:
        seconds = time.monotonic() - self._sent_at
        if process.code == 0 and seconds > 1.0:
            return [f"Ctrl-C was lost: the process ended {seconds:.1f} s later with exit code 0"]
        if seconds > _INTERRUPT_SECONDS:
            return [f"the process ended {seconds:.0f} s after Ctrl-C"]
        return []


class TwoInterrupts(Interrupt):
    """Ctrl-C twice within half a second."""

    kind = "SIGINT twice"
    codes = (130, -signal.SIGINT, 0)
    goal = 2
    signals = 2


class Stop(Fault):
    """SIGSTOP, and SIGCONT up to two seconds later."""

    kind = "SIGSTOP and SIGCONT"
    workers = (1, 1, 2)
    codes = (0,)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        hit = process.send_group(signal.SIGSTOP)
        time.sleep(attempt.rng.uniform(0.1, 2.0))
        return process.send_group(signal.SIGCONT) and hit
