"""The number of workers on this machine: chosen from its cores, memory and GPUs, or checked against them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbt.machine.cores import usable_cores
from nbt.machine.memory import available_memory
from nbt.option import AUTO
from nbt.tuning.engines.cpu_threads import limit_threads
from nbt.tuning.engines.gpu_packing import MAX_TRIALS_PER_GPU

if TYPE_CHECKING:
    from nbt.task.task import Task

_log = logging.getLogger("nbt")

# The frozen-feature caches of all workers use the rest, see `nbt.training.worker.context`.
_MEMORY_SHARE = 0.75


@dataclass(frozen=True)
class MachineResources:
    """What the trials of this process may use on its machine.

    Attributes:
        cores: Number of usable cores, 1 or more.
        memory: Available memory in bytes.
        gpus: Number of GPUs.
    """

    cores: int
    memory: int
    gpus: int = 0


@dataclass(frozen=True)
class WorkerCount:
    """A number of workers that fits, and why not more.

    Attributes:
        workers: Number of workers, 1 or more.
        reason: What limits the number, such as "2 usable cores".
    """

    workers: int
    reason: str


def fitting_workers(
    machine: MachineResources, trial_memory: Callable[[], int], max_runs: int | None = None
) -> WorkerCount:
    """Returns the number of workers with which this machine is fully used.

    Each worker has a core of its own, as far as there are cores and runs. On CPUs the memory of the machine must
    suffice for all workers. On GPUs the number is the most that may share them; the engine measures the memory of
    trials to determine how many run at a time.

    Args:
        machine: The resources of the machine.
        trial_memory: Returns the memory that a worker on the CPU needs, in bytes; called only where it matters.
        max_runs: Number of runs that can run at a time; None for any number.
    """
    limits = [WorkerCount(machine.cores, _count(machine.cores, "usable core"))]
    if max_runs is not None:
        limits.append(WorkerCount(max(1, max_runs), _count(max_runs, "run")))
    if machine.gpus:
        reason = f"{_count(machine.gpus, 'GPU')}, at most {MAX_TRIALS_PER_GPU} trials per GPU"
        limits.append(WorkerCount(machine.gpus * MAX_TRIALS_PER_GPU, reason))
    elif all(limit.workers > 1 for limit in limits):
        needed = trial_memory()
        reason = f"{_gib(machine.memory)} of memory available, about {_gib(needed)} per worker"
        limits.append(WorkerCount(max(1, int(_MEMORY_SHARE * machine.memory / needed)), reason))
    return min(limits, key=lambda limit: limit.workers)


def resolve_workers(
    requested: int | str, machine: MachineResources, trial_memory: Callable[[], int], max_runs: int | None = None
) -> tuple[int, str]:
    """Returns the number of workers and the line that says why.

    Args:
        requested: `AUTO`, or the user's number, which is kept; a warning gives the number that fits if it is lower.
        machine: The resources of the machine.
        trial_memory: As in `fitting_workers`.
        max_runs: As in `fitting_workers`.
    """
    if requested == AUTO:
        chosen = fitting_workers(machine, trial_memory, max_runs)
        return chosen.workers, f"{describe_workers(chosen.workers, machine)}: {chosen.reason}"
    workers = int(requested)
    if workers > 1 and workers > (fitting := fitting_workers(machine, trial_memory)).workers:
        fit = "1 worker fits" if fitting.workers == 1 else f"{fitting.workers} workers fit"
        _log.warning("--workers %d: only %s this machine (%s)", workers, fit, fitting.reason)
    if max_runs is not None and max_runs < workers:
        return max(1, max_runs), f"{describe_workers(max(1, max_runs), machine)}: {_count(max_runs, 'run')}"
    return workers, f"{describe_workers(workers, machine)}, as requested (--workers {requested})"


def most_workers(requested: int | str, max_runs: int | None = None) -> int:
    """Returns the greatest number of workers that may be chosen on a machine without GPUs; it needs no task.

    Args:
        requested: `AUTO`, or the user's number.
        max_runs: As in `fitting_workers`.
    """
    workers = usable_cores() if requested == AUTO else int(requested)
    return workers if max_runs is None else max(1, min(workers, max_runs))


def describe_workers(workers: int, machine: MachineResources) -> str:
    """Returns the number of workers with their threads or GPUs, as in "2 workers with 1 thread each"."""
    if machine.gpus:
        return f"up to {_count(workers, 'worker')} on {_count(min(workers, machine.gpus), 'GPU')}"
    threads = _count(limit_threads(machine.cores // workers), "thread")
    return f"{_count(workers, 'worker')} with {threads}{' each' if workers > 1 else ''}"


def this_machine() -> MachineResources:
    """Returns the resources of this machine, as far as this process or its container may use them."""
    import torch

    return MachineResources(usable_cores(), available_memory(), torch.cuda.device_count())


def choose_workers(
    requested: int | str, task: Task, max_runs: int | None = None, extra_memory: int = 0
) -> tuple[int, str]:
    """Returns the number of workers for a task on this machine, and the line that says why.

    Args:
        requested: `AUTO`, or a number.
        task: The task to fine-tune on.
        max_runs: Number of runs that can run at a time; None for any number.
        extra_memory: Memory that a worker needs in addition to that of a trial, in bytes.
    """
    from nbt.training.worker.trial_memory import estimate_trial_memory

    def trial_memory() -> int:
        return max(map(estimate_trial_memory, (task, *task.candidates.values()))) + extra_memory

    return resolve_workers(requested, this_machine(), trial_memory, max_runs)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
