"""Workers that run out of memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from faults.kinds.base import Attempt, Fault
from faults.kinds.signals import workers_of
from faults.process import Process


class WorkerOutOfMemory(Fault):
    """A worker process gets no more memory from the system; the search must go on with the other one or a new one."""

    kind = "worker out of memory"
    phases = ("trials", "finals", "train")
    workers = (2,)
    codes = (0,)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        pids = workers_of(attempt, process)
        if process.poll() is not None or not pids:
            return False
        pid = attempt.rng.choice(sorted(pids))
        limit = _address_space(pid) + attempt.rng.randint(0, 1 << 23)
        try:
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        except ProcessLookupError:
            return False
        return True


def _address_space(pid: int) -> int:
    """Returns the size of the address space of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
