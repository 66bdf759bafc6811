"""Device and precision: where a model runs, in which numbers and on how many images; images as it takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from nbt.errors import UsageError

# What CUDA and ROCm, their libraries and the allocator of a CPU say, each by a RuntimeError of another kind.
_OUT_OF_MEMORY_MESSAGES = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "can't allocate memory")
# Of NVIDIA's GPUs, the first that computes in bf16; older ones convert to float32 and back, which is slower.
_MIN_BF16_CAPABILITY = 8
_REFERENCE_IMAGE_SIZE = 224

INFERENCE_BATCH_SIZE = 256
"""Images of 224 px and less at a time where nothing is trained: what a loop over a source's or a stream's images holds
in memory; see `inference_batch_size`."""


def pick_device(name: str | None = None) -> torch.device:
    """Returns the device called `name`, or the first GPU, or the CPU where there is none.

    Raises:
        UsageError: The machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}; write cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def precision(device: torch.device) -> str:
    """Returns what networks are trained and run in on a device: "bf16" or "float32".

    On a CPU float32 is exact and not slower, nor is it slower on a GPU that has to emulate bf16.
    """
    if device.type != "cuda":
        return "float32"
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= _MIN_BF16_CAPABILITY
    return "bf16" if native else "float32"


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Returns bf16 autocast where that is the device's `precision`, else nothing."""
    if precision(device) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def inference_batch_size(most: int, size: int) -> int:
    """Returns how many images go through a network together where nothing is trained.

    Above 224 px they are fewer, so that a batch takes about as much memory as `most` images of 224 px.

    Args:
        most: At 224 px and below, 1 or more.
        size: Height and width in pixels.
    """
    return max(1, round(most * min(1.0, (_REFERENCE_IMAGE_SIZE / size) ** 2)))


def out_of_memory(error: BaseException) -> bool:
    """Tells whether an exception is a device or the machine running out of memory."""
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_MESSAGES):
        return True
    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns images as a backbone takes them.

    Args:
        pixels: float32 (n, 3, H, W), 0 ... 255.
        mean: (3,), of values in 0 ... 1, on the same device.
        std: (3,).
    """
    scale = 1.0 / (255.0 * std)
    return torch.addcmul((-mean / std).view(1, 3, 1, 1), pixels, scale.view(1, 3, 1, 1))


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Counts numbers below 1e-38 as 0 on this thread, and puts the processor back as it was.

    A moment that is halved a hundred times is that small; steps on single images then take several times as long.
    """
    # torch sets the mode but does not tell it.
    earlier = float(torch.tensor(1e-38) * 0.1) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(earlier)
