"""Size of a backbone: its parameters, and the time that one image takes on this device."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from nbt.devices import pick_device
from nbt.models.backbone import Backbone

_SECONDS = 0.3


def parameter_count(model: Backbone) -> int:
    """Returns the number of parameters of the units of a model, without its head."""
    return sum(parameter.numel() for parameter in model.units.parameters())


def measure_latency(model: Backbone, image_size: int, device: str | None = None) -> float:
    """Returns the median time in milliseconds in which a model classifies one image, in evaluation mode.

    The image is on the device already. On a CPU, one thread computes, and its CPU time counts: several threads wait for
    one another wherever another program uses a core, and then take up to a hundred times as long.

    Args:
        model: The model; it is moved to the device.
        image_size: Height and width of the image in pixels.
        device: As in `nbt.load_model`.

    Raises:
        UsageError: There is no such device.
    """
    # The package warns at its import where there is no CUDA, which does not matter here.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    target = pick_device(device)
    model = model.to(target).to(memory_format=torch.channels_last).eval()
    image = torch.zeros(1, 3, image_size, image_size, device=target).to(memory_format=torch.channels_last)
    clock: dict[str, Any] = {"timer": time.thread_time} if target.type == "cpu" else {}
    timer = Timer("model(image)", globals={"model": model, "image": image}, num_threads=1, **clock)
    with torch.inference_mode():
        return 1e3 * float(timer.blocked_autorange(min_run_time=_SECONDS).median)
