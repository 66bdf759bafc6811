"""BatchNorm shift: the distance of the target's activations from the running statistics of BatchNorm layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MAX_IMAGES = 256
"""Number of images whose activations are compared; each has many positions, and the order of the sample is random."""

_CHUNK_ELEMENTS = 1 << 20  # Fits into a processor's cache for the two passes over it.


class BatchNormShift(NamedTuple):
    """The shift of the BatchNorm statistics of one unit; NaN without BatchNorm.

    Attributes:
        mean: Mean over channels of |mu_t - mu_s| / sqrt(var_s + eps), in standard deviations of the source, 0 or more;
            lower is closer.
        variance: Mean over channels of |ln((var_t + eps) / (var_s + eps))| / 2, 0 or more; 0.69 for standard deviations
            that differ by a factor of two; lower is closer.
    """

    mean: float
    variance: float


class RunningMoments:
    """Mean and variance of each channel over a sequence of batches."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: torch.Tensor = torch.zeros(())
        self.squares: torch.Tensor = torch.zeros(())

    def update(self, values: torch.Tensor) -> None:
        """Adds a batch, (n, C) or (n, C, ...)."""
        chunk_size = max(1, _CHUNK_ELEMENTS * len(values) // values.numel())
        for chunk in values.split(chunk_size):
            self._add(chunk.movedim(1, -1).reshape(-1, values.shape[1]).float())

    def _add(self, rows: torch.Tensor) -> None:
        """Adds rows, (n, C), by Chan's formula, which avoids cancellation."""
        count = len(rows)
        batch_mean = rows.mean(dim=0)
        squares = (rows - batch_mean).square_().sum(dim=0).double()
        mean = batch_mean.double()
        total = self.count + count
        delta = mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + squares + delta.square() * (self.count * count / total)
        self.mean = self.mean.to(mean) + delta * (count / total)
        self.count = total

    @property
    def variance(self) -> torch.Tensor:
        """Biased variance of each channel, float64 (C,)."""
        return self.squares / self.count


class BatchNormShiftRecorder:
    """Records the moments of the inputs of BatchNorm layers in evaluation mode, for the first 256 images.

    Args:
        units: The units in order; BatchNorm layers without running statistics are ignored.
        ignored: Further layers to ignore, because their running statistics are not those of the source.
    """

    def __init__(self, units: Iterable[nn.Module], ignored: Collection[nn.Module] = ()) -> None:
        self._norms = [
            [norm for norm in unit.modules() if _has_running_statistics(norm) and norm not in ignored] for unit in units
        ]
        self._moments = {norm: RunningMoments() for norms in self._norms for norm in norms}
        self._images_seen = dict.fromkeys(self._moments, 0)
        self._handles: list[Any] = []

    def __enter__(self) -> BatchNormShiftRecorder:
        self._handles = [norm.register_forward_pre_hook(self._record_input) for norm in self._moments]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _record_input(self, norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        remaining = MAX_IMAGES - self._images_seen[norm]
        if remaining > 0:
            self._moments[norm].update(inputs[0].detach()[:remaining])
            self._images_seen[norm] += len(inputs[0])

    def shifts(self) -> list[BatchNormShift]:
        """Returns the shift of each unit: the mean over the channels of all its BatchNorm layers."""
        return [self._shift(norms) for norms in self._norms]

    def _shift(self, norms: list[nn.Module]) -> BatchNormShift:
        shifts = [_channel_shifts(norm, self._moments[norm]) for norm in norms if self._moments[norm].count]
        if not shifts:
            return BatchNormShift(math.nan, math.nan)
        return BatchNormShift(*(float(torch.cat(values).mean()) for values in zip(*shifts, strict=True)))


def _has_running_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None


def _channel_shifts(norm: Any, target: RunningMoments) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the shifts of means and of variances of each channel, float64 (C,)."""
    mean, variance = norm.running_mean.double(), norm.running_var.double() + norm.eps
    mean_shift = (target.mean - mean).abs() / variance.sqrt()
    variance_shift = ((target.variance + norm.eps) / variance).log().abs() / 2
    return mean_shift, variance_shift
