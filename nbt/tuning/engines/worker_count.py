"""The number of workers on this machine: chosen from its cores, memory and GPUs, or checked against them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbt.machine.cores import usable_cores
from nbt.machine.memory import available_memory
from nbt.search_config import AUTO
from nbt.tuning.engines.cpu_threads import limit_threads

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")

_MAX_TRIALS_PER_GPU = 16
# The frozen-feature caches of all workers use the rest, see `nbt.training.worker.context`.
_MEMORY_SHARE = 0.75


@dataclass(frozen=True)
class MachineResources:
    """What the trials of this process may use on its machine.

    Attributes:
        cores: Number of usable cores, 1 or more.
        memory: Available memory in bytes.
        gpu_memory: Free memory of each GPU in bytes; empty without GPUs.
    """

    cores: int
    memory: int
    gpu_memory: tuple[int, ...] = ()


@dataclass(frozen=True)
class WorkerCount:
    """A number of workers that fits, and why not more.

    Attributes:
        workers: Number of workers, 1 or more.
        reason: What limits the number, such as "2 usable cores".
    """

    workers: int
    reason: str


def fitting_workers(machine: MachineResources, trial_memory: int, max_runs: int | None = None) -> WorkerCount:
    """Returns the number of workers with which this machine is fully used.

    On CPUs this is one worker per core, on GPUs one per trial that fits on them, as far as each has a core; in both
    cases at most as many as the memory allows and as there are runs, and at least one.

    Args:
        machine: The resources of the machine.
        trial_memory: Memory that a worker needs, in bytes: of the machine, or of a GPU if there are any.
        max_runs: Number of runs that can run at a time; None for any number.
    """
    limits = [_gpu_limit(machine, trial_memory) if machine.gpu_memory else _memory_limit(machine, trial_memory)]
    limits.append(WorkerCount(machine.cores, _count(machine.cores, "usable core")))
    if max_runs is not None:
        limits.append(WorkerCount(max_runs, _count(max_runs, "run")))
    limit = min(reversed(limits), key=lambda entry: entry.workers)
    return WorkerCount(max(1, limit.workers), limit.reason)


def _memory_limit(machine: MachineResources, trial_memory: int) -> WorkerCount:
    workers = int(_MEMORY_SHARE * machine.memory / trial_memory)
    return WorkerCount(workers, f"{_gib(machine.memory)} of memory available, about {_gib(trial_memory)} per worker")


def _gpu_limit(machine: MachineResources, trial_memory: int) -> WorkerCount:
    per_gpu = [min(_MAX_TRIALS_PER_GPU, int(_MEMORY_SHARE * free / trial_memory)) for free in machine.gpu_memory]
    # Worker i uses GPU i modulo the number of GPUs, so that the GPU with the least memory limits all.
    workers = len(per_gpu) * max(1, min(per_gpu))
    gpus, least = _count(len(per_gpu), "GPU"), min(machine.gpu_memory)
    return WorkerCount(workers, f"{gpus} with {_gib(least)} free, about {_gib(trial_memory)} per trial")


def resolve_workers(
    requested: int | str,
    machine: MachineResources,
    trial_memory: Callable[[], int],
    max_runs: int | None = None,
) -> tuple[int, str]:
    """Returns the number of workers and the line that says why.

    Args:
        requested: `AUTO`, or the user's number, which is kept; a warning gives the number that fits if it is lower.
        machine: The resources of the machine.
        trial_memory: Returns the memory that a worker needs, in bytes; called only if it matters.
        max_runs: Number of runs that can run at a time; None for any number.
    """
    if requested == AUTO:
        single = machine.cores == 1 or max_runs == 1
        chosen = fitting_workers(machine, 1 if single else trial_memory(), max_runs)
        return chosen.workers, f"{describe_workers(chosen.workers, machine)}: {chosen.reason}"
    workers = int(requested)
    if workers > 1 and workers > (fitting := fitting_workers(machine, trial_memory())).workers:
        fit = "1 worker fits" if fitting.workers == 1 else f"{fitting.workers} workers fit"
        _log.warning("--workers %d: only %s this machine (%s)", workers, fit, fitting.reason)
    if max_runs is not None:
        workers = min(workers, max_runs)
    return workers, f"{describe_workers(workers, machine)}: --workers {requested}"


def describe_workers(workers: int, machine: MachineResources) -> str:
    """Returns the number of workers with their threads or GPUs, as in "2 workers with 1 thread each"."""
    if machine.gpu_memory:
        gpus = min(workers, len(machine.gpu_memory))
        return f"{_count(workers, 'worker')} on {_count(gpus, 'GPU')}"
    threads = _count(worker_threads(workers, machine.cores), "thread")
    return f"{_count(workers, 'worker')} with {threads}{' each' if workers > 1 else ''}"


def worker_threads(workers: int, cores: int) -> int:
    """Returns the number of threads per worker: an equal share of the cores, at least 1."""
    return limit_threads(cores // workers)


def this_machine() -> MachineResources:
    """Returns the resources of this machine, as far as this process or its container may use them."""
    import torch

    # The free memory of a GPU is known only after this process has opened it.
    gpus = tuple(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
    return MachineResources(usable_cores(), available_memory(), gpus)


def choose_workers(requested: int | str, task: Task, max_runs: int | None = None) -> tuple[int, str]:
    """Returns the number of workers for a task on this machine, and the line that says why.

    Args:
        requested: `AUTO`, or a number.
        task: The task to fine-tune on.
        max_runs: Number of runs that can run at a time; None for any number.
    """
    from nbt.training.worker.trial_memory import estimate_trial_memory

    return resolve_workers(requested, this_machine(), lambda: estimate_trial_memory(task), max_runs)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
