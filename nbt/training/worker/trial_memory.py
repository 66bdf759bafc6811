"""Estimate of the memory that a worker needs while it trains, to choose the number of workers."""

from __future__ import annotations

import torch
from torch import nn

from nbt.task.task import Task

# Measured with torch 2.15 on CPUs: private memory of a worker before its first step (Python, torch, the task's labels
# and splits). On a GPU the CUDA context takes about as much of the GPU's memory.
_BASE_BYTES = 450 << 20
# Weights, pretrained weights, gradients, two moments of AdamW, and the average of the weights or the kept state.
_COPIES_OF_WEIGHTS = 6
# Private memory of a step per output of a layer, measured as 1.8 to 1.9 for MobileNetV2, SqueezeNet and ResNet-18.
_COPIES_OF_OUTPUTS = 2
LARGEST_BATCH = 64
"""Images per step that the estimate assumes: the largest batch in the search spaces of the package."""


def estimate_trial_memory(task: Task) -> int:
    """Returns the estimated memory of a worker that trains all units of a task's backbone, in bytes.

    The images of the task and the frozen-feature cache are not included: workers share the images, and the cache has a
    limit of its own.
    """
    model = task.build_model()
    weights = int(sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()))
    outputs = _output_bytes_per_image(model, task.image_size)
    return _BASE_BYTES + _COPIES_OF_WEIGHTS * weights + _COPIES_OF_OUTPUTS * LARGEST_BATCH * outputs


@torch.no_grad()
def _output_bytes_per_image(model: nn.Module, image_size: int) -> int:
    """Returns the bytes of the outputs of all layers for one image."""
    total = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * output.element_size()

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    n = 2  # a layer may need the statistics of a batch
    model(torch.zeros(n, 3, image_size, image_size))
    return total // n
