"""What the driver and the workers of a cluster say to each other; plain data, without Ray."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec


@dataclass(eq=False)
class TrialAssignment:
    """A spec on its way to a worker. Files do not travel by name: a worker may be on another machine.

    Attributes:
        spec: What to run; its checkpoint and export are the driver's.
        checkpoint: Content of the checkpoint to continue from, None without one; forgotten once the worker has it.
        resources: What the run needs, by Ray's names: CPU, GPU.
        slot: Number of the worker, 0 ... workers - 1.
    """

    spec: TrialSpec
    checkpoint: bytes | None = field(default=None, repr=False)
    resources: Mapping[str, float] = field(default_factory=dict)
    slot: int = 0

    def __deepcopy__(self, memo: object) -> TrialAssignment:
        # Ray Tune copies what it is given several times, and a checkpoint is large.
        return self

    def __repr__(self) -> str:
        return self.spec.key  # Ray Tune makes names of it


@dataclass(frozen=True)
class WorkerLocation:
    """Where a worker runs.

    Attributes:
        node: Ray's id of the node.
        host: Name of the machine.
        device: "cpu", "cuda:0" as the worker sees it.
        gpus: Numbers of the GPUs that it was given, as the machine counts them.
    """

    node: str = ""
    host: str = ""
    device: str = ""
    gpus: tuple[str, ...] = ()

    def may_share_memory_with(self, other: WorkerLocation | None) -> bool:
        """Tells whether two workers may lack each other's memory; of an unknown location, yes."""
        return other is None or (self.node, self.device == "cpu", self.gpus) == (
            other.node,
            other.device == "cpu",
            other.gpus,
        )

    def facts(self) -> dict[str, Any]:
        """Returns what a trial's record says of it: node, device and gpu_index, as far as they are known."""
        known = {"node": self.host, "device": self.device, "gpu_index": ",".join(self.gpus)}
        return {name: value for name, value in known.items() if value}


def local_worker_location(device: str) -> WorkerLocation:
    """Returns where a worker of this machine is, from its device as torch calls it: "cpu", "cuda:1"."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return WorkerLocation(host=platform.node(), device=device)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    number = int(index or 0)
    name = visible[number] if number < len(visible) and visible[number] else str(number)
    return WorkerLocation(host=platform.node(), device=device, gpus=(name,))


@dataclass(eq=False)
class WorkerMessage:
    """What a worker says after an epoch, or at the end of a run.

    Attributes:
        epoch: The epoch, where it is one.
        outcome: The end of the run, where it is that.
        setup_failed: The worker could not make its tools; the outcome says why.
        checkpoint: Content of the checkpoint that was written since the last message.
        export: Content of the exported model's files by name.
        logs: Level and text of log records.
        location: Where the worker is.
    """

    epoch: EpochResult | None = None
    outcome: TrialOutcome | None = None
    setup_failed: bool = False
    checkpoint: bytes | None = field(default=None, repr=False)
    export: Mapping[str, bytes] | None = field(default=None, repr=False)
    logs: tuple[tuple[int, str], ...] = ()
    location: WorkerLocation = WorkerLocation()

    def drop_files(self) -> None:
        """Frees what is large: Ray Tune keeps every trial's last message to the end."""
        self.checkpoint = self.export = None


def with_worker_paths(spec: TrialSpec, folder: Path) -> TrialSpec:
    """Returns a spec whose files are in a worker's own folder."""
    return replace(
        spec,
        checkpoint=None if spec.checkpoint is None else folder / "checkpoint.pt",
        export=None if spec.export is None else folder / "export",
    )
