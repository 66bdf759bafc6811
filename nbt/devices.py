"""Devices, precision, inference batch sizes, and the normalisation of image batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from nbt.errors import UsageError

# Texts of the RuntimeErrors by which CUDA, ROCm, their libraries and the CPU allocator report a lack of memory.
_OUT_OF_MEMORY_MESSAGES = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "can't allocate memory")
# The first compute capability of NVIDIA GPUs with native bf16; older GPUs emulate it, which is slower.
_MIN_BF16_CAPABILITY = 8
_REFERENCE_IMAGE_SIZE = 224

INFERENCE_BATCH_SIZE = 256
"""Maximum number of images per inference batch at 224 px and below, for loops over the images of a source or a stream;
see `inference_batch_size`."""


def pick_device(name: str | None = None) -> torch.device:
    """Returns the device called `name`; by default the first GPU, or the CPU on a machine without a GPU.

    Raises:
        UsageError: The name is not a device, or this machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}; expected cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def precision(device: torch.device) -> str:
    """Returns the number format in which networks are trained and evaluated on a device: "bf16" or "float32".

    The CPU uses float32, which is as fast there; so do GPUs without native bf16.
    """
    if device.type != "cuda":
        return "float32"
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= _MIN_BF16_CAPABILITY
    return "bf16" if native else "float32"


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Returns bf16 autocast where the device's `precision` is "bf16", else a context manager without effect."""
    if precision(device) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def inference_batch_size(max_batch_size: int, size: int) -> int:
    """Returns the number of images per inference batch.

    Above 224 px the number shrinks with the area of the images, so that a batch takes about as much memory as
    `max_batch_size` images of 224 px.

    Args:
        max_batch_size: Number of images at 224 px and below, 1 or more.
        size: Height and width of the images in pixels.
    """
    return max(1, round(max_batch_size * min(1.0, (_REFERENCE_IMAGE_SIZE / size) ** 2)))


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception means that a device or the machine has run out of memory."""
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_MESSAGES):
        return True
    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Normalises images channel by channel, as a backbone expects them.

    Args:
        pixels: float32 (n, 3, H, W), values in 0 ... 255.
        mean: Mean of each channel, of values in 0 ... 1, (3,), on the same device.
        std: Standard deviation of each channel, (3,).
    """
    scale = 1.0 / (255.0 * std)
    return torch.addcmul((-mean / std).view(1, 3, 1, 1), pixels, scale.view(1, 3, 1, 1))


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treats numbers below 1e-38 as 0 on this thread, and restores the processor's previous mode afterwards.

    Optimiser moments that shrink at every step become denormal; training steps on single images then take several times
    as long.
    """
    # PyTorch can set the mode, but not read it.
    was_flushing = float(torch.tensor(1e-38) * 0.1) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
