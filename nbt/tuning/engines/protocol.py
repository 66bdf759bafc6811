"""Messages between the driver and the workers, the same with every engine: plain data."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec


@dataclass(eq=False)
class TrialAssignment:
    """A trial assigned to a worker.

    Attributes:
        spec: Specification of the trial; its checkpoint and export are paths on the driver's machine.
        resources: Resources of the trial by Ray's names, "CPU" and "GPU".
        slot: Number of the worker, 0 ... workers - 1.
        checkpoint: Content of the checkpoint to continue from, where worker and driver share no file system; set to
            None once the worker has received it.
    """

    spec: TrialSpec
    resources: Mapping[str, float] = field(default_factory=dict)
    slot: int = 0
    checkpoint: bytes | None = field(default=None, repr=False)

    def __deepcopy__(self, memo: object) -> TrialAssignment:
        # Ray Tune copies its configuration several times, and a checkpoint is large.
        return self

    def __repr__(self) -> str:
        return self.spec.key  # Ray Tune uses this in names


@dataclass(frozen=True)
class WorkerLocation:
    """Location of a worker.

    Attributes:
        node: Ray's ID of the node.
        host: Name of the machine.
        device: Device as the worker's PyTorch names it: "cpu", "cuda:0".
        gpu_indices: Indices of the worker's GPUs on its machine.
    """

    node: str = ""
    host: str = ""
    device: str = ""
    gpu_indices: tuple[str, ...] = ()

    def may_share_memory_with(self, other: WorkerLocation | None) -> bool:
        """Returns whether two workers may use the same memory; True if the other's location is unknown."""
        return other is None or (self.node, self.device == "cpu", self.gpu_indices) == (
            other.node,
            other.device == "cpu",
            other.gpu_indices,
        )

    def facts(self) -> dict[str, Any]:
        """Returns the location as stored with a trial: those of "node", "device" and "gpu_index" that are known."""
        known = {"node": self.host, "device": self.device, "gpu_index": ",".join(self.gpu_indices)}
        return {name: value for name, value in known.items() if value}


def local_worker_location(device: str) -> WorkerLocation:
    """Returns the location of a worker on this machine from its PyTorch device, such as "cpu" or "cuda:1"."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return WorkerLocation(host=platform.node(), device=device)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    number = int(index or 0)
    name = visible[number] if number < len(visible) and visible[number] else str(number)
    return WorkerLocation(host=platform.node(), device=device, gpu_indices=(name,))


@dataclass(eq=False)
class WorkerMessage:
    """Message of a worker: after an epoch, at the end of a trial, or with nothing but its location or log records.

    Attributes:
        epoch: Result of an epoch, to which the driver replies with the reason to stop, or None to continue.
        outcome: Outcome of the trial, which has ended.
        setup_failed: Whether the worker could not set up its runner; `outcome` has the reason.
        location: Location of the worker; None if it is unknown or the driver has received it.
        logs: Levels and texts of the log records since the last message.
        checkpoint: Content of the checkpoint if it has changed since the last one sent, where worker and driver share
            no file system.
        export: Contents of the exported model's files by file name, where worker and driver share no file system.
    """

    epoch: EpochResult | None = None
    outcome: TrialOutcome | None = None
    setup_failed: bool = False
    location: WorkerLocation | None = None
    logs: tuple[tuple[int, str], ...] = ()
    checkpoint: bytes | None = field(default=None, repr=False)
    export: Mapping[str, bytes] | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerMessage, tuple(vars(self).values())  # without the names of the fields: half the time
