"""What the nodes of a cluster have, and what a trial asks of one. It knows no Ray."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from nbt.errors import UsageError
from nbt.tuning.engines.ray.options import RayOptions

_log = logging.getLogger("nbt")


@dataclass(frozen=True)
class NodeResources:
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


def choose_trial_resources(nodes: Sequence[NodeResources], options: RayOptions, workers: int) -> dict[str, float]:
    """Returns what a trial asks for, by Ray's names.

    Without a word from the user that is a GPU where there are any (a share of one where the workers outnumber them),
    and as many CPUs as leave room for all workers on the nodes that have what else a trial needs.

    Raises:
        UsageError: No node has so much.
    """
    gpus = _choose_gpus(nodes, options.gpus_per_trial, workers)
    hosts = [node for node in nodes if node.gpus >= gpus] if gpus else list(nodes)
    if not hosts:
        raise UsageError(f"--gpus-per-trial {gpus:g}: no node has so many; {_describe(nodes)}")
    if gpus > 1:
        _log.warning("--gpus-per-trial %g: a trial trains on one GPU; the others of its share stay idle", gpus)
    # Shares of a GPU that are still to be measured may let more trials run than there are GPUs now.
    required_gpus = 0.0 if options.gpus_per_trial == "auto" else gpus
    cpus = options.cpus_per_trial
    if cpus is None:
        if not any(node.cpus for node in hosts):
            raise UsageError(f"no node has CPUs for trials: start workers first; {_describe(nodes)}")
        cpus = _choose_cpus(hosts, required_gpus, workers)
    if not any(node.cpus >= cpus for node in hosts):
        raise UsageError(f"--cpus-per-trial {cpus:g}: no node that fits has so many; {_describe(nodes)}")
    if (room := _max_concurrent_trials(hosts, cpus, required_gpus)) < workers:
        _log.warning("the cluster has room for %d of %d workers; the others wait for nodes that join", room, workers)
    return {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}


def _choose_gpus(nodes: Sequence[NodeResources], requested: float | str | None, workers: int) -> float:
    has = sum(node.gpus for node in nodes)
    if isinstance(requested, str):
        return min(1.0, has)
    if requested is not None:
        return requested
    # A share has to fit on a GPU as a whole, and is rounded down, or the last one would not fit.
    return 0.0 if not has else 1.0 if workers <= has else max(0.01, int(10_000 / math.ceil(workers / has)) / 10_000)


def _choose_cpus(hosts: Sequence[NodeResources], gpus: float, workers: int) -> float:
    """Returns the most CPUs a trial with which the hosts have room for all workers, or for as many as ever fit."""
    whole = range(int(max(node.cpus for node in hosts)), 0, -1)
    shares = (int(100 / parts) / 100 for parts in range(2, 101))
    choices = [*map(float, whole), *shares]
    fits = min(workers, _max_concurrent_trials(hosts, choices[-1], gpus))
    return next(cpus for cpus in choices if _max_concurrent_trials(hosts, cpus, gpus) >= fits)


def _max_concurrent_trials(hosts: Sequence[NodeResources], cpus: float, gpus: float) -> int:
    """Returns how many trials run at a time: each has all that it asks for on one node, a share of a GPU on one GPU."""
    return sum(min(int(node.cpus / cpus + 1e-9), _trials_on_gpus(node.gpus, gpus)) for node in hosts)


def _trials_on_gpus(has: float, requested_gpus: float) -> int:
    if not requested_gpus:
        return sys.maxsize
    return int(has) * int(1 / requested_gpus + 1e-9) if requested_gpus < 1 else int(has / requested_gpus + 1e-9)


def _describe(nodes: Sequence[NodeResources]) -> str:
    shown = "; ".join(str(node) for node in nodes[:8]) or "no node at all"
    return f"the cluster has {shown}{'; ...' if len(nodes) > 8 else ''}"
