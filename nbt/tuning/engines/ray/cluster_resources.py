"""The resources of a cluster's nodes, and the choice of the resources per trial; does not import Ray."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from nbt.errors import UsageError
from nbt.tuning.engines.gpu_packing import MAX_TRIALS_PER_GPU
from nbt.tuning.engines.ray.options import RayOptions

_log = logging.getLogger("nbt")


@dataclass(frozen=True)
class NodeResources:
    """Resources of a node.

    Attributes:
        name: Name of the machine.
        cpus: Number of CPUs, as Ray counts them.
        gpus: Number of GPUs, as Ray counts them.
    """

    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name}: {self.cpus:g} CPU, {self.gpus:g} GPU"


def choose_trial_resources(nodes: Sequence[NodeResources], options: RayOptions, workers: int) -> dict[str, float]:
    """Returns the resources that a trial requests, by Ray's names "CPU" and "GPU".

    By default, a trial requests one GPU if the cluster has any (a share of one if there are more workers than GPUs) and
    the largest number of CPUs with which all workers fit on the nodes that have enough GPUs.

    Args:
        nodes: The nodes of the cluster.
        options: The user's choices, which override the defaults.
        workers: Number of concurrent trials.

    Raises:
        UsageError: No node has the required resources.
    """
    gpus = _choose_gpus(nodes, options.gpus_per_trial, workers)
    hosts = [node for node in nodes if node.gpus >= gpus] if gpus else list(nodes)
    if not hosts:
        raise UsageError(f"--gpus-per-trial {gpus:g}: no node has a GPU; {_describe(nodes)}")
    # With "auto" the share is not known yet, and more trials than GPUs may run: GPUs do not limit the CPUs per trial.
    required_gpus = 0.0 if options.gpus_per_trial == "auto" else gpus
    cpus = options.cpus_per_trial
    if cpus is None:
        if not any(node.cpus for node in hosts):
            raise UsageError(f"no node has CPUs for trials; start Ray workers first; {_describe(nodes)}")
        cpus = _choose_cpus(hosts, required_gpus, workers)
    if not any(node.cpus >= cpus for node in hosts):
        raise UsageError(f"--cpus-per-trial {cpus:g}: no suitable node has that many CPUs; {_describe(nodes)}")
    if (capacity := _max_concurrent_trials(hosts, cpus, required_gpus)) < workers:
        _log.warning("the cluster has room for %d of %d workers; the others wait for more nodes", capacity, workers)
    return {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}


def fitting_trials(nodes: Sequence[NodeResources], options: RayOptions) -> int:
    """Returns how many trials the cluster has room for at present, at least 1.

    A trial takes what the options give it: by default a GPU of its own if the cluster has any, else one CPU. With
    "auto" GPUs, several trials share a GPU, as far as each has a CPU.

    Args:
        nodes: The nodes of the cluster.
        options: The user's choices.
    """
    shared = options.gpus_per_trial == "auto" and any(node.gpus for node in nodes)
    gpus = 1.0 / MAX_TRIALS_PER_GPU if shared else _choose_gpus(nodes, options.gpus_per_trial, 1)
    hosts = [node for node in nodes if node.gpus >= gpus] if gpus else list(nodes)
    return max(1, _max_concurrent_trials(hosts, options.cpus_per_trial or 1.0, gpus))


def _choose_gpus(nodes: Sequence[NodeResources], requested: float | str | None, workers: int) -> float:
    available = sum(node.gpus for node in nodes)
    if isinstance(requested, str):
        return min(1.0, available)
    if requested is not None:
        return requested
    if not available:
        return 0.0
    # A whole number of shares fits on each GPU; rounded down, because the last one would not fit otherwise.
    return 1.0 if workers <= available else max(0.01, int(10_000 / math.ceil(workers / available)) / 10_000)


def _choose_cpus(hosts: Sequence[NodeResources], gpus: float, workers: int) -> float:
    """Returns the largest number of CPUs per trial with which all workers, or the most that can, fit on the hosts."""
    whole = range(int(max(node.cpus for node in hosts)), 0, -1)
    shares = (int(100 / trials_per_cpu) / 100 for trials_per_cpu in range(2, 101))
    choices = [*map(float, whole), *shares]
    trials = min(workers, _max_concurrent_trials(hosts, choices[-1], gpus))
    return next(cpus for cpus in choices if _max_concurrent_trials(hosts, cpus, gpus) >= trials)


def _max_concurrent_trials(hosts: Sequence[NodeResources], cpus: float, gpus: float) -> int:
    """Returns how many trials fit: each needs its resources on a single node, and a share of a GPU on a single GPU."""
    return sum(min(int(node.cpus / cpus + 1e-9), _trials_on_gpus(node.gpus, gpus)) for node in hosts)


def _trials_on_gpus(available: float, requested_gpus: float) -> int:
    return int(available) * int(1 / requested_gpus + 1e-9) if requested_gpus else sys.maxsize


def _describe(nodes: Sequence[NodeResources]) -> str:
    shown = "; ".join(str(node) for node in nodes[:8]) or "no nodes"
    return f"the cluster has {shown}{'; ...' if len(nodes) > 8 else ''}"
