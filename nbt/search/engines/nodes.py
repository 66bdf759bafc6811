"""What the nodes of a cluster have, and what a trial asks of one. It knows no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbt.errors import UsageError
from nbt.search.engines.ray_options import RayOptions


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has.

    Attributes:
        name: Of the machine.
        cpus: Its CPUs, as Ray counts them.
        gpus: Its GPUs.
    """

    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name}: {self.cpus:g} CPU, {self.gpus:g} GPU"


def choose_resources(nodes: Sequence[Node], options: RayOptions, workers: int) -> dict[str, float]:
    """Returns what a trial asks for, by Ray's names.

    Without a word from the user that is a GPU where there are any (a share of one where the workers outnumber them),
    and this worker's share of the CPUs.

    Raises:
        UsageError: No node has so much.
    """
    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    has = sum(node.gpus for node in nodes)
    if gpus is None:
        gpus = 0.0 if not has else 1.0 if workers <= has else max(0.01, int(100 * has / workers) / 100)
    elif isinstance(gpus, str):
        gpus = min(1.0, has)
    hosts = [node for node in nodes if node.gpus >= gpus] if gpus else list(nodes)
    if not hosts:
        raise UsageError(f"--gpus-per-trial {gpus:g}: no node has so many; {_describe(nodes)}")
    if cpus is None:
        if not any(node.cpus for node in hosts):
            raise UsageError(f"no node has CPUs for trials: start workers first; {_describe(nodes)}")
        share = sum(node.cpus for node in hosts) / workers
        cpus = max(1, int(share)) if share >= 1 else max(0.01, int(100 * share) / 100)
        cpus = min(cpus, max(node.cpus for node in hosts))
    if not any(node.cpus >= cpus for node in hosts):
        raise UsageError(f"--cpus-per-trial {cpus:g}: no node that fits has so many; {_describe(nodes)}")
    return {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}


def _describe(nodes: Sequence[Node]) -> str:
    shown = "; ".join(str(node) for node in nodes[:8]) or "no node at all"
    return f"the cluster has {shown}{'; ...' if len(nodes) > 8 else ''}"
