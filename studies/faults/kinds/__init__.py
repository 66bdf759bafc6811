"""The kinds of faults: one class each, with the contract of `faults.kinds.base.Fault`."""

from __future__ import annotations

from faults.kinds.base import Fault
from faults.kinds.clock import ClockSetBack
from faults.kinds.disk import DamagedCache, DamagedStore, FullDisk, ReadOnlyFolder, WriteError
from faults.kinds.locks import LockedDatabase, SecondProcess
from faults.kinds.many_studies import ManyStudies
from faults.kinds.memory import WorkerOutOfMemory
from faults.kinds.postgresql import LostConnections, RestartedServer
from faults.kinds.ray import FullObjectStore, LostHead, LostNode
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
    *(KillDriver, ManyStudies, KillRayDriver, KillWorker, KillAll, Terminate, Interrupt, TwoInterrupts, Stop),
    *(FullDisk, WriteError, ReadOnlyFolder, DamagedCache, DamagedStore, LockedDatabase),
    *(RestartedServer, LostConnections, LostNode, LostHead, FullObjectStore, WorkerOutOfMemory),
    *(UnreachableServer, BrokenServer, SlowServer, SecondProcess, ClockSetBack),
)

NOT_BUILT = {
    "5,000 trials in one study": "`studies/soak.py` has more",
}
"""Kinds of faults that the campaign has not, with the reason."""
