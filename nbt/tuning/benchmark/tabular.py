"""CandidatePool: the recorded settings of a task as points of the space, and which of them a replay has used."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.errors import UsageError
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, best_epoch
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.space.dimension import Dimension, ParamValue
from nbt.tuning.space.space import Space

FloatArray = NDArray[np.float64]


def coordinates(space: Space, settings: TransferSettings) -> FloatArray:
    """Returns repaired settings as a point whose distances are root mean squares over the space's parameters.

    A number counts by its place between the ends of its range, 0 ... 1, on the logarithm where the space draws it on
    the logarithm; two choices of a categorical dimension are 1 apart.
    """
    parts = [
        part
        for d in space.dimensions
        for value in (getattr(settings, d.name) if d.knots else (getattr(settings, d.name),))
        for part in _normalised_coordinates(d, value)
    ]
    return np.asarray(parts) / math.sqrt(len(space.parameters))


def _normalised_coordinates(dimension: Dimension, value: Any) -> list[float]:
    if dimension.kind == "categorical":
        return [math.sqrt(0.5) * (value == choice) for choice in dimension.choices]
    assert dimension.low is not None and dimension.high is not None
    low, high = float(dimension.low), float(dimension.high)
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return [(value - low) / (high - low) if high > low else 0.0]


@dataclasses.dataclass(frozen=True, eq=False)
class RecordedSetting:
    """One recorded setting with all its runs.

    Attributes:
        number: Of the first recorded setting with these settings.
        settings: The repaired recipe.
        params: Parameters of the space's sampler that stand for it.
        runs: By their seed; at least one.
        curves: Of the runs, without what a search must not see: the accuracy on test images.
    """

    number: int
    settings: TransferSettings
    params: Mapping[str, ParamValue]
    runs: Sequence[RecordedRun]

    @cached_property
    def curves(self) -> tuple[tuple[EpochResult, ...], ...]:
        """See above."""
        return tuple(
            tuple(dataclasses.replace(result, watched_accuracy=None) for result in run.curve) for run in self.runs
        )

    def choose_run(self, seed: int) -> int:
        """Returns the run that a replay with this seed meets, drawn once for all methods."""
        return derive_seed(seed, "recorded run", self.number) % len(self.runs)


class TabularBenchmark:
    """The settings of a table as points of a space.

    Args:
        table: With at least one run.
        space: What is searched. What the table does not vary is neutral in all its runs and is held so: a table that
            was recorded before there was a technique is searched without it.

    Raises:
        UsageError: The table is empty, of another space, has runs of different lengths, or none with validation.
    """

    def __init__(self, table: RecordedTable, space: Space) -> None:
        table.check_space(space)
        space = space.without(d.name for d in space.dimensions if d.name not in table.header.dimensions)
        self.header, self.space = table.header, space
        self.settings = _recorded_settings(table, space)
        self.points = np.stack([coordinates(space, setting.settings) for setting in self.settings])
        self.index = {setting.settings: i for i, setting in enumerate(self.settings)}

    @property
    def length(self) -> int:
        """Epochs of a full run."""
        return self.header.epochs


class CandidatePool:
    """What a replay has left of a catalogue.

    Args:
        catalogue: Of the task.

    Attributes:
        distances: Index of a used setting -> how far it is from what was proposed; None where nobody proposed it.
    """

    def __init__(self, benchmark: TabularBenchmark) -> None:
        self.benchmark = benchmark
        self._unused = np.ones(len(benchmark.settings), dtype=bool)
        self.distances: dict[int, float | None] = {}

    def __len__(self) -> int:
        return int(self._unused.sum())

    @property
    def unused(self) -> list[int]:
        """Indices of the settings that were not used yet."""
        return [int(i) for i in np.flatnonzero(self._unused)]

    def nearest(self, settings: TransferSettings) -> tuple[int, float]:
        """Returns the index of the nearest unused setting, and how far away it is; the lower number of equals."""
        point = coordinates(self.benchmark.space, settings)
        point_distances = np.linalg.norm(self.benchmark.points - point, axis=1)
        point_distances[~self._unused] = np.inf
        index = int(np.argmin(point_distances))
        return index, float(point_distances[index])

    def use(self, index: int, distance: float | None = None) -> None:
        """Marks a setting as used, and keeps how far it is from what was proposed."""
        self._unused[index] = False
        self.distances[index] = distance


def _recorded_settings(table: RecordedTable, space: Space) -> list[RecordedSetting]:
    """Returns the settings of a table in order; runs of equal settings belong together whatever their number."""
    known: dict[TransferSettings, list[RecordedRun]] = {}
    for run in sorted(table.runs, key=lambda run: (run.setting, run.seed)):
        _check_run(run, table)
        known.setdefault(run.settings, []).append(run)
    if not known:
        raise UsageError(f"{table.source}: no runs in this recorded table")
    try:
        return [RecordedSetting(runs[0].setting, key, space.params(key), runs) for key, runs in known.items()]
    except UsageError as error:
        raise UsageError(f"{table.source}: not every recorded setting is of space {space.name}: {error}") from error


def _check_run(run: RecordedRun, table: RecordedTable) -> None:
    name = f"{table.source}: setting {run.setting}, seed {run.seed}"
    if not run.diverged and len(run.curve) != table.header.epochs:
        raise UsageError(f"{name}: {len(run.curve)} epochs, but the table says {table.header.epochs}")
    best = best_epoch(run.curve)
    if best is None or (best.val_accuracy is None and not run.diverged):
        raise UsageError(f"{name}: no validation accuracy, which a search needs")
