"""Device and precision: where a model runs, and in which numbers; images as it takes them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from nbt.errors import UsageError


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


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Returns bf16 autocast on a GPU; on a CPU nothing, since there float32 is exact and not slower."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns images as a backbone takes them.

    Args:
        pixels: float32 (n, 3, H, W), 0 ... 255.
        mean: (3,), of values in 0 ... 1, on the same device.
        std: (3,).
    """
    scale = 1.0 / (255.0 * std)
    return torch.addcmul((-mean / std).view(1, 3, 1, 1), pixels, scale.view(1, 3, 1, 1))
