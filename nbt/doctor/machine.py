"""Cores, memory and GPUs of the machine or container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from nbt.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis
from nbt.doctor.sizes import GIB, size_text
from nbt.machine.cores import usable_cores
from nbt.machine.memory import available_memory

MIN_MEMORY = GIB
"""Memory in bytes below which a worker with a small network may not fit."""

ENOUGH_MEMORY = 2 * GIB
"""Memory in bytes below which a worker with a network such as resnet50 may not fit."""


def check_machine(root: Path = Path("/")) -> Iterator[Diagnosis]:
    """Yields the usable cores and the available memory, with the limits of the container.

    Args:
        root: Root of the file system that holds the kernel's files.
    """
    usable, cores = usable_cores(root), os.cpu_count() or 1
    limits = "" if usable >= cores else f" of {cores}, by affinity or the quota of the container"
    yield Diagnosis("cores", OK, f"{usable} usable{limits}")
    memory = available_memory(root)
    status = OK if memory >= ENOUGH_MEMORY else WARNING if memory >= MIN_MEMORY else PROBLEM
    advice = "" if status == OK else "end other programs, raise the limit of the container, or give --workers 1"
    yield Diagnosis("memory", status, f"{size_text(memory)} available", advice)


def check_gpus(is_present: Callable[[], bool] | None = None) -> Iterator[Diagnosis]:
    """Yields the GPUs that PyTorch can use; torch is imported only if the machine has a GPU's driver.

    Args:
        is_present: Whether the machine has the driver of a GPU; looks for those of NVIDIA and AMD when None.
    """
    if not (is_present or _has_gpu_driver)():
        yield Diagnosis("GPU", OK, "none; trials train on the CPU")
        return
    try:
        import torch
    except Exception as error:  # a broken installation raises errors of many types
        yield Diagnosis("GPU", PROBLEM, f"torch cannot be imported ({error})", "reinstall torch for this machine")
        return
    if not torch.cuda.is_available():
        advice = "install the build of torch for this driver, see pytorch.org, or update the driver"
        yield Diagnosis("GPU", WARNING, f"there is a driver, but torch {torch.__version__} cannot use it", advice)
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        memory = f"{size_text(free)} of {size_text(total)} free"
        yield Diagnosis(f"GPU {index}", OK, f"{torch.cuda.get_device_name(index)}, {memory}")


def _has_gpu_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
