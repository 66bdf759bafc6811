"""The kinds of faults: one class each, with the contract of `faults.kinds.base.Fault`."""

from __future__ import annotations

from faults.kinds.base import Fault
from faults.kinds.clock import ClockSetBack
from faults.kinds.disk import DamagedCache, DamagedStore, FullDisk, ReadOnlyFolder, WriteError
from faults.kinds.locks import LockedDatabase, SecondProcess
from faults.kinds.signals import (
    Interrupt,
    KillAll,
    KillDriver,
    KillRayDriver,
    KillWorker,
    Stop,
    Terminate,
    TwoInterrupts,
)
from faults.kinds.tracking import BrokenServer, SlowServer, UnreachableServer

KINDS: tuple[type[Fault], ...] = (
    *(KillDriver, KillRayDriver, KillWorker, KillAll, Terminate, Interrupt, TwoInterrupts, Stop),
    *(FullDisk, WriteError, ReadOnlyFolder, DamagedCache, DamagedStore, LockedDatabase),
    *(UnreachableServer, BrokenServer, SlowServer, SecondProcess, ClockSetBack),
)

NOT_BUILT = {
    "PostgreSQL restarted, connections dropped": "not built: `tests/tuning/storage` has a test of each",
    "Ray node, head and object store lost": "not built: `tests/tuning/engines/ray/test_killed.py` and `test_faults.py`",
    "worker out of memory": "not built: `tests/tuning/engines/contract.py`",
    "50 studies in one store": "not built: `tests/tuning/storage/test_studies.py`",
    "5,000 trials in one study": "not built: `studies/soak.py` has 10,000 in one",
}
"""Kinds of faults that the campaign has not, with the reason."""
