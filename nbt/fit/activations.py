"""Activations: one forward pass over a sample, and what every unit gives for it, pooled.

Pooling is the same for pretrained and random weights. A map of C channels is averaged over 2 x 2 quarters where that
gives 512 features or fewer, else over all positions; tokens are averaged. 2 x 2 keeps where something is in the image,
which early units with their few channels say little without; beyond 512 features its measures would cost more than
the forward pass. The last unit gives what the head sees: the backbone's features. All of it is in
float32, on a GPU, too: bf16 would round the features that are compared, and a thousand images cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from nbt.devices import normalise

if TYPE_CHECKING:
    from nbt.fit.validation import Integers
    from nbt.models.backbone import Backbone
    from nbt.task.task import Task

Matrix = npt.NDArray[np.float32]

BATCH_SIZE = 32  # Larger ones have activations so large that fresh memory for each costs more than the arithmetic.
MAX_QUARTERED_FEATURES = 512
"""Features of a unit up to which its map is pooled to 2 x 2."""


@dataclass(frozen=True, eq=False)
class Activations:
    """What the units of a backbone give for N images.

    Attributes:
        units: Pooled output of each, float32 (N, D_i); the last has the features, (N, D).
        channels: Channels of each unit's output.
        dead: How many of them have one and the same value for all images and positions.
        logits: Of the source's classes, float32 (N, C_s), where there is a source head.
    """

    units: list[Matrix]
    channels: tuple[int, ...]
    dead: tuple[int, ...]
    logits: Matrix | None = None

    @property
    def features(self) -> Matrix:
        """What the head sees, float32 (N, D)."""
        return self.units[-1]


def iter_image_batches(
    task: Task, index: Integers, device: torch.device, size: int = BATCH_SIZE
) -> Iterator[torch.Tensor]:
    """Yields images as the backbone takes them in evaluation, (n, 3, H, W) on the device.

    Args:
        task: Its images and their normalisation.
        index: Which images, int64 (N,).
        device: Where to.
        size: Images a batch.
    """
    mean, std = torch.tensor(task.mean, device=device), torch.tensor(task.std, device=device)
    for start in range(0, len(index), size):
        pixels = torch.from_numpy(task.images.array[index[start : start + size]]).to(device)
        pixels = normalise(pixels.permute(0, 3, 1, 2).float(), mean, std)
        yield pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def collect_activations(
    model: Backbone,
    task: Task,
    index: Integers,
    device: torch.device,
    *,
    source_head: nn.Module | None = None,
    on_batch: Callable[[], None] | None = None,
) -> Activations:
    """Runs a backbone once over some images.

    Memory: the pooled outputs, and one batch of activations.

    Args:
        model: In evaluation mode, on the device.
        task: Its images are looked at.
        index: Which, int64 (N,).
        device: Where the model is.
        source_head: From the last unit's output to logits of the source's classes.
        on_batch: Called after every batch.
    """
    records = [_UnitRecorder(len(index)) for _ in model.units]
    logits = _RowBuffer(len(index))
    for images in iter_image_batches(task, index, device):
        hidden = images
        for unit, record in zip(model.units, records, strict=True):
            hidden = unit(hidden)
            last = record is records[-1]
            record.add(channels_first(hidden), model.neck(hidden) if last else None)
        if source_head is not None:
            logits.add(source_head(hidden))
        if on_batch is not None:
            on_batch()
    return Activations(
        units=[record.rows.numpy() for record in records],
        channels=tuple(record.channels for record in records),
        dead=tuple(record.dead for record in records),
        logits=None if source_head is None else logits.numpy(),
    )


@torch.no_grad()
def compute_features(
    model: Backbone, task: Task, index: Integers, device: torch.device, on_batch: Callable[[], None] | None = None
) -> Matrix:
    """Returns a backbone's features of some images, float32 (N, D)."""
    rows = _RowBuffer(len(index))
    for images in iter_image_batches(task, index, device):
        rows.add(model.features(images))
        if on_batch is not None:
            on_batch()
    return rows.numpy()


@torch.no_grad()
def recalibrate_batch_norm(model: Backbone, images: torch.Tensor) -> None:
    """Sets the running statistics of a random network's BatchNorm layers to those of one batch of images.

    They start at 0 and 1, which is what they are in no layer: in evaluation mode the activations of a deep random
    network would vanish or explode, and the comparison with it would flatter the pretrained weights. Other layers,
    dropout among them, stay in evaluation mode.

    Args:
        model: On the device of the images.
        images: (n, 3, H, W), n of 2 or more.
    """
    norms = [module for module in model.units.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # A plain average, here of one batch.
    try:
        model.forward_units(images)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def channels_first(hidden: torch.Tensor) -> torch.Tensor:
    """Returns a unit's output with its channels second: (N, C), (N, C, T) or (N, C, H, W).

    Maps of square images are square, which tells the maps that Swin and others pass on as (N, H, W, C).
    """
    if hidden.ndim == 3:
        return hidden.transpose(1, 2)
    if hidden.ndim == 4 and hidden.shape[1] == hidden.shape[2] != hidden.shape[3]:
        return hidden.permute(0, 3, 1, 2)
    return hidden


def pool_activations(hidden: torch.Tensor) -> torch.Tensor:
    """Returns a vector an image, (N, D_i), of a unit's output with its channels second; see the module's text."""
    if hidden.ndim == 2:
        return hidden
    if hidden.ndim != 4 or min(hidden.shape[2:]) < 2 or 4 * hidden.shape[1] > MAX_QUARTERED_FEATURES:
        return hidden.mean(dim=tuple(range(2, hidden.ndim)))
    return F.adaptive_avg_pool2d(hidden, 2).flatten(1)


class _RowBuffer:
    """A matrix that grows by batches up to n rows; it stays on the device until it is asked for."""

    def __init__(self, n: int) -> None:
        self._n, self._filled = n, 0
        self._matrix: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        if self._matrix is None:
            self._matrix = torch.empty(self._n, rows.shape[1], device=rows.device)
        self._matrix[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def numpy(self) -> Matrix:
        assert self._matrix is not None
        return self._matrix.cpu().numpy()


class _UnitRecorder:
    """What one unit gave so far."""

    def __init__(self, n: int) -> None:
        self.rows = _RowBuffer(n)
        self.channels = 0
        self._dead_candidates: torch.Tensor | None = None
        self._constant_value: torch.Tensor = torch.empty(0)

    def add(self, hidden: torch.Tensor, features: torch.Tensor | None) -> None:
        self.rows.add(pool_activations(hidden) if features is None else features)
        self._update_dead_channels(hidden)

    @property
    def dead(self) -> int:
        return 0 if self._dead_candidates is None else len(self._dead_candidates)

    def _update_dead_channels(self, hidden: torch.Tensor) -> None:
        """Keeps those channels under suspicion that have had one value only; the others need no second look."""
        if self._dead_candidates is None:
            self.channels = hidden.shape[1]
            self._dead_candidates = torch.arange(self.channels, device=hidden.device)
            self._constant_value = hidden[(0, slice(None)) + (0,) * (hidden.ndim - 2)].clone()
        if not len(self._dead_candidates):
            return
        # One image acquits most, at a hundredth of what the batch would cost.
        for part in (hidden[:1], hidden):
            own = part[:, self._dead_candidates]
            value = self._constant_value.view(1, -1, *(1,) * (hidden.ndim - 2))
            constant = (own == value).flatten(2).all(2).all(0) if own.ndim > 2 else (own == value).all(0)
            self._dead_candidates, self._constant_value = (
                self._dead_candidates[constant],
                self._constant_value[constant],
            )
