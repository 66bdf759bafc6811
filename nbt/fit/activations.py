"""Activations: the pooled outputs of every unit for a sample of images, from one forward pass.

Pooling is the same for pretrained and random weights. A map of C channels is averaged over 2 x 2 quarters if that gives
at most 512 features, else over all positions; tokens are averaged. Quarters retain positions, without which early units
with few channels carry little information; with more than 512 features the measures would take longer than the forward
pass. The last unit's output is replaced by the backbone's features, the input of the head. Everything is computed in
float32, also on a GPU: bf16 would round the compared features, and a thousand images take little time.
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

if TYPE_CHECKING:
    from nbt.fit.validation import IntArray
    from nbt.models.backbone import Backbone
    from nbt.task.task import Task

Matrix = npt.NDArray[np.float32]

BATCH_SIZE = 32  # In larger batches, allocating memory takes longer than the arithmetic.
MAX_QUARTERED_FEATURES = 512
"""Maximum number of features of a unit for which its map is pooled to 2 x 2."""


@dataclass(frozen=True, eq=False)
class Activations:
    """The outputs of a backbone's units for N images.

    Attributes:
        units: Pooled output of each unit, float32 (N, D_i); the features, (N, D), for the last unit.
        channels: Number of channels of each unit's output.
        dead_channels: Number of channels of each unit with a single value for all images and positions.
        logits: Logits of the source's classes, float32 (N, C_s); None without a source head.
    """

    units: list[Matrix]
    channels: tuple[int, ...]
    dead_channels: tuple[int, ...]
    logits: Matrix | None = None

    @property
    def features(self) -> Matrix:
        """The backbone's features, float32 (N, D)."""
        return self.units[-1]


def iter_image_batches(
    task: Task, index: IntArray, device: torch.device, size: int = BATCH_SIZE
) -> Iterator[torch.Tensor]:
    """Yields batches of images, (n, 3, H, W), on the device, normalised as in evaluation.

    Args:
        task: The task with the images and their normalisation.
        index: Indices of the images, int64 (N,).
        device: Target device.
        size: Images per batch.
    """
    for start in range(0, len(index), size):
        yield task.load_images(index[start : start + size], device)


@torch.no_grad()
def collect_activations(
    model: Backbone,
    task: Task,
    index: IntArray,
    device: torch.device,
    *,
    source_head: nn.Module | None = None,
    on_batch: Callable[[], None] | None = None,
) -> Activations:
    """Returns the activations of a backbone for some images, from one forward pass.

    Memory: the pooled outputs, and the activations of one batch.

    Args:
        model: The backbone, in evaluation mode, on the device.
        task: The task with the images.
        index: Indices of the images, int64 (N,).
        device: Device of the model.
        source_head: Maps the last unit's output to logits of the source's classes.
        on_batch: Called after every batch.
    """
    recorders = [_UnitRecorder(len(index)) for _ in model.units]
    logits = _RowBuffer(len(index))
    for images in iter_image_batches(task, index, device):
        hidden = images
        for unit, recorder in zip(model.units, recorders, strict=True):
            hidden = unit(hidden)
            is_last = recorder is recorders[-1]
            recorder.add(channels_first(hidden), model.neck(hidden) if is_last else None)
        if source_head is not None:
            logits.add(source_head(hidden))
        if on_batch is not None:
            on_batch()
    return Activations(
        units=[recorder.rows.numpy() for recorder in recorders],
        channels=tuple(recorder.channels for recorder in recorders),
        dead_channels=tuple(recorder.dead_channels for recorder in recorders),
        logits=None if source_head is None else logits.numpy(),
    )


@torch.no_grad()
def compute_features(
    model: Backbone, task: Task, index: IntArray, device: torch.device, on_batch: Callable[[], None] | None = None
) -> Matrix:
    """Returns a backbone's features for some images, float32 (N, D)."""
    rows = _RowBuffer(len(index))
    for images in iter_image_batches(task, index, device):
        rows.add(model.features(images))
        if on_batch is not None:
            on_batch()
    return rows.numpy()


def channels_first(hidden: torch.Tensor) -> torch.Tensor:
    """Returns a unit's output with the channels in dimension 1: (N, C), (N, C, T) or (N, C, H, W).

    Maps of square images are square, by which the (N, H, W, C) maps of Swin and others are recognised.
    """
    if hidden.ndim == 3:
        return hidden.transpose(1, 2)
    if hidden.ndim == 4 and hidden.shape[1] == hidden.shape[2] != hidden.shape[3]:
        return hidden.permute(0, 3, 1, 2)
    return hidden


def pool_activations(hidden: torch.Tensor) -> torch.Tensor:
    """Returns one vector per image, (N, D_i), for a unit's output with channels in dimension 1.

    The module docstring describes the pooling.
    """
    if hidden.ndim == 2:
        return hidden
    if hidden.ndim != 4 or min(hidden.shape[2:]) < 2 or 4 * hidden.shape[1] > MAX_QUARTERED_FEATURES:
        return hidden.mean(dim=tuple(range(2, hidden.ndim)))
    return F.adaptive_avg_pool2d(hidden, 2).flatten(1)


class _RowBuffer:
    """A matrix of n rows that is filled batch by batch and stays on the device until it is read."""

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
    """Collects the pooled outputs and the dead channels of one unit."""

    def __init__(self, n: int) -> None:
        self.rows = _RowBuffer(n)
        self.channels = 0
        self._dead_candidates: torch.Tensor | None = None
        self._constant_values: torch.Tensor = torch.empty(0)

    def add(self, hidden: torch.Tensor, features: torch.Tensor | None) -> None:
        """Adds a batch of outputs; `features` replace the pooled output where they are given."""
        self.rows.add(pool_activations(hidden) if features is None else features)
        self._update_dead_channels(hidden)

    @property
    def dead_channels(self) -> int:
        return 0 if self._dead_candidates is None else len(self._dead_candidates)

    def _update_dead_channels(self, hidden: torch.Tensor) -> None:
        """Keeps channels that have had a single value so far as candidates; others are not checked again."""
        if self._dead_candidates is None:
            self.channels = hidden.shape[1]
            self._dead_candidates = torch.arange(self.channels, device=hidden.device)
            self._constant_values = hidden[(0, slice(None)) + (0,) * (hidden.ndim - 2)].clone()
        if not len(self._dead_candidates):
            return
        # The first image excludes most channels at a small part of the cost of the batch.
        for part in (hidden[:1], hidden):
            candidates = part[:, self._dead_candidates]
            values = self._constant_values.view(1, -1, *(1,) * (hidden.ndim - 2))
            constant = (
                (candidates == values).flatten(2).all(2).all(0)
                if candidates.ndim > 2
                else (candidates == values).all(0)
            )
            self._dead_candidates, self._constant_values = (
                self._dead_candidates[constant],
                self._constant_values[constant],
            )
