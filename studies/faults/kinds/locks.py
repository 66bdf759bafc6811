"""Other programs that use the database, or the same study."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from faults.checks import check_output
from faults.kinds.base import Attempt, Fault
from faults.process import Process
from faults.search import TIMEOUT_SECONDS


class LockedDatabase(Fault):
    """Another program locks the database for up to four seconds; the search waits."""

    kind = "database locked"
    phases = ("profile", "trials", "finals", "train", "report")
    codes = (0,)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        hit = process.poll() is None
        with closing(sqlite3.connect(attempt.search.database, timeout=30.0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(attempt.rng.uniform(0.5, 4.0))
            connection.rollback()
        return hit


class SecondProcess(Fault):
    """The same command is started again while the search runs; the second one is refused, the first one goes on."""

    kind = "second process on the study"
    phases = ("profile", "trials", "finals", "train")
    codes = (0,)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        self._second = attempt.search.run("second")
        self._second.wait(TIMEOUT_SECONDS)
        self._overlapped = process.poll() is None
        return True

    def problems(self, attempt: Attempt, process: Process) -> list[str]:
        # The first process may end before the second one opens the study.
        codes = (1,) if self._overlapped else (0, 1)
        problems = check_output(self._second, codes)
        if self._second.code == 1 and "is being searched by another" not in self._second.errors:
            problems.append(f"the second process says: {self._second.errors.strip()[-200:]}")
        return problems
