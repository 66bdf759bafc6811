"""Comparison of several methods on the same streams, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from nbt._version import __version__
from nbt.training.continual import metrics
from nbt.training.continual.metrics import Matrix
from nbt.tuning.intervals import (
    Interval,
    accuracy_interval,
    interval_json,
    paired_interval,
    t_interval,
    wilson_interval,
)
from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord, stream_name


@dataclass(frozen=True, eq=False)
class MethodStreams:
    """The finished streams of one method, one per seed.

    Attributes:
        method: Name of the method.
        streams: The streams, in the order of their seeds.
    """

    method: str
    streams: tuple[StreamRecord, ...]

    @property
    def config(self) -> StreamConfig:
        """Configuration of the first stream."""
        return self.streams[0].config

    @property
    def matrix(self) -> Matrix:
        """Mean accuracy after each task on each task, (T, T), 0 ... 1."""
        mean: Matrix = np.stack([stream.result.matrix for stream in self.streams]).mean(axis=0)
        return mean

    @property
    def average_accuracies(self) -> list[float]:
        """Average accuracy after the last task, one per stream."""
        return [stream.result.average_accuracy for stream in self.streams]

    @property
    def average_accuracy(self) -> Interval:
        """Mean average accuracy with Student's interval over streams, or Wilson's over the images of one stream."""
        if len(self.streams) > 1:
            return accuracy_interval(self.average_accuracies)
        return wilson_interval(self.average_accuracies[0], effective_sample_size(self.streams[0].images))

    @property
    def forgetting(self) -> Interval:
        """Mean forgetting with Student's interval over streams; a single stream has no interval."""
        return t_interval([stream.result.forgetting for stream in self.streams])

    @property
    def forward_transfer(self) -> Interval | None:
        """Mean forward transfer with Student's interval over streams; None if the scenario does not define it."""
        values = [stream.result.forward_transfer for stream in self.streams]
        known = [value for value in values if value is not None]
        return t_interval(known) if len(known) == len(values) else None

    @property
    def seconds(self) -> float:
        """Mean time per stream."""
        return sum(stream.result.seconds for stream in self.streams) / len(self.streams)

    @property
    def diverged(self) -> bool:
        """Whether any of the streams diverged."""
        return any(stream.result.diverged for stream in self.streams)

    def averages(self) -> list[Interval]:
        """Returns the average accuracy on the tasks so far, after each task, with Student's interval over streams."""
        rows = [average_accuracy_curve(stream) for stream in self.streams]
        return [accuracy_interval(values) for values in zip(*rows, strict=True)]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods on the same tasks, in the same orders, with the same seeds.

    Attributes:
        methods: The methods; the first is the reference of the others.
        command: Command that reproduces the comparison, or "".
    """

    methods: tuple[MethodStreams, ...]
    command: str

    @property
    def config(self) -> StreamConfig:
        """Configuration of the first stream."""
        return self.methods[0].config

    @property
    def seeds(self) -> list[int]:
        """Seeds of the streams, the same for every method."""
        return [stream.config.seed for stream in self.methods[0].streams]

    @property
    def name(self) -> str:
        """Name of the report."""
        return stream_name([runs.config for runs in self.methods], self.seeds)

    @property
    def started(self) -> datetime:
        """Start of the earliest stream, UTC."""
        return min(stream.started for runs in self.methods for stream in runs.streams)

    def versus(self, runs: MethodStreams) -> Interval | None:
        """Returns the difference in average accuracy to the first method, paired by streams; None for the first method.

        A single stream gives no interval: both methods are evaluated on the same images, and the correlation of their
        errors is unknown.
        """
        first = self.methods[0]
        if runs is first:
            return None
        return paired_interval(runs.average_accuracies, first.average_accuracies)

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison in JSON types: a summary of every method, then all streams."""
        config = self.config
        return {
            "nbt": __version__,
            "name": self.name,
            "dataset": config.dataset,
            "backbone": config.backbone,
            "weights": config.weights,
            "scenario": config.settings.scenario,
            "tasks": config.settings.tasks,
            "seeds": self.seeds,
            "evaluated_on": self.methods[0].streams[0].result.evaluate_on,
            "methods": [self._method_to_json(runs) for runs in self.methods],
            "command": self.command,
            "streams": [stream.to_dict() for runs in self.methods for stream in runs.streams],
        }

    def _method_to_json(self, runs: MethodStreams) -> dict[str, Any]:
        return {
            "method": runs.method,
            "average_accuracy": interval_json(runs.average_accuracy),
            "forgetting": interval_json(runs.forgetting),
            "forward_transfer": interval_json(runs.forward_transfer),
            "versus_first": interval_json(self.versus(runs)),
            "matrix": runs.matrix.tolist(),
            "diverged": runs.diverged,
            "curvature_bytes": max(stream.curvature_bytes for stream in runs.streams),
            "seconds": runs.seconds,
        }


def compare_methods(records: Sequence[StreamRecord], command: str = "") -> Comparison:
    """Returns the comparison of finished streams: methods in order of appearance, streams by seed.

    Args:
        records: The streams; every method has the same seeds.
        command: Command that reproduces the comparison, for the report.
    """
    methods = dict.fromkeys(record.config.method for record in records)
    by_method = {
        name: sorted((record for record in records if record.config.method == name), key=lambda r: r.config.seed)
        for name in methods
    }
    return Comparison(tuple(MethodStreams(name, tuple(streams)) for name, streams in by_method.items()), command)


def average_accuracy_curve(stream: StreamRecord) -> list[float]:
    """Returns the average accuracy on the tasks so far, after each task of one stream."""
    matrix = stream.result.matrix
    return [metrics.average_accuracy(matrix[:k]) for k in range(1, len(matrix) + 1)]


def forgetting_curve(stream: StreamRecord) -> list[float]:
    """Returns the forgetting after each task of one stream, 0 after the first."""
    matrix = stream.result.matrix
    return [metrics.forgetting(matrix[:k]) for k in range(1, len(matrix) + 1)]


def effective_sample_size(images: Sequence[int]) -> int:
    """Returns the sample size whose binomial error equals that of a mean over tasks, T^2 / sum of 1 / n_j.

    This assumes equal accuracies on all tasks.

    Args:
        images: Number of evaluation images per task, n_j, each at least 1.
    """
    return round(len(images) ** 2 / sum(1.0 / count for count in images))
