"""A system clock that is set back while a search runs."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable

from faults.kinds.base import Attempt, Fault
from faults.process import Process
from faults.search import TIMEOUT_SECONDS


class ClockSetBack(Fault):
    """From a random moment on, `time.time` and `datetime.now` are an hour behind; the monotonic clock goes on."""

    kind = "clock set back"
    phases = ("start",)
    codes = (0,)

    def setup(self, attempt: Attempt) -> Callable[[], None] | None:
        after = attempt.rng.uniform(0.5, 5.0)
        return lambda: set_back(after, 3600.0)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        process.wait(TIMEOUT_SECONDS)
        return True


def set_back(after: float, seconds: float) -> None:
    """Replaces the clock of the modules of nbt and Optuna: so many seconds later it is set back by `seconds`."""
    real = time.time
    moment = real() + after

    def shifted() -> float:
        now = real()
        return now - seconds if now > moment else now

    class ShiftedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> ShiftedDatetime:
            return cls.fromtimestamp(shifted(), tz)

    time.time = shifted
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("nbt", "optuna") and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = ShiftedDatetime  # type: ignore[attr-defined]
