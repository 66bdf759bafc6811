"""What the driver and the workers of a cluster say to each other; plain data, without Ray."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbt.training.results import EpochResult, TrialJob, TrialOutcome


@dataclass(eq=False)
class Order:
    """A job on its way to a worker. Files do not travel by name: a worker may be on another machine.

    Attributes:
        job: What to run; its checkpoint and export are the driver's.
        checkpoint: Content of the checkpoint to continue from, None without one; forgotten once the worker has it.
        resources: What the run needs, by Ray's names: CPU, GPU.
        slot: Number of the worker, 0 ... workers - 1.
    """

    job: TrialJob
    checkpoint: bytes | None = field(default=None, repr=False)
    resources: Mapping[str, float] = field(default_factory=dict)
    slot: int = 0

    def __deepcopy__(self, memo: object) -> Order:
        # Ray Tune copies what it is given several times, and a checkpoint is large.
        return self

    def __repr__(self) -> str:
        return self.job.key  # Ray Tune makes names of it


@dataclass(frozen=True)
class Place:
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

    def shares_memory(self, other: Place | None) -> bool:
        """Tells whether two workers may lack each other's memory; of an unknown place, yes."""
        return other is None or (self.node, self.device == "cpu", self.gpus) == (
            other.node,
            other.device == "cpu",
            other.gpus,
        )

    def facts(self) -> dict[str, Any]:
        """Returns what a trial's record says of it: node, device and gpu_index, as far as they are known."""
        said = {"node": self.host, "device": self.device, "gpu_index": ",".join(self.gpus)}
        return {name: value for name, value in said.items() if value}


def local_place(device: str) -> Place:
    """Returns where a worker of this machine is, from its device as torch calls it: "cpu", "cuda:1"."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return Place(host=platform.node(), device=device)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    number = int(index or 0)
    name = visible[number] if number < len(visible) and visible[number] else str(number)
    return Place(host=platform.node(), device=device, gpus=(name,))


@dataclass(eq=False)
class Said:
    """What a worker says after an epoch, or at the end of a run.

    Attributes:
        epoch: The epoch, where it is one.
        outcome: The end of the run, where it is that.
        broken: The worker could not make its tools; the outcome says why.
        checkpoint: Content of the checkpoint that was written since the last message.
        export: Content of the exported model's files by name.
        logs: Level and text of log records.
        place: Where the worker is.
    """

    epoch: EpochResult | None = None
    outcome: TrialOutcome | None = None
    broken: bool = False
    checkpoint: bytes | None = field(default=None, repr=False)
    export: Mapping[str, bytes] | None = field(default=None, repr=False)
    logs: tuple[tuple[int, str], ...] = ()
    place: Place = Place()

    def forget_files(self) -> None:
        """Frees what is large: Ray Tune keeps every trial's last message to the end."""
        self.checkpoint = self.export = None


def at_worker(job: TrialJob, folder: Path) -> TrialJob:
    """Returns a job whose files are in a worker's own folder."""
    return replace(
        job,
        checkpoint=None if job.checkpoint is None else folder / "checkpoint.pt",
        export=None if job.export is None else folder / "export",
    )
