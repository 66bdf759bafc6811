"""Tabular benchmark: the recorded settings of a task as points of a search space, and the pool of unused ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbt.errors import UsageError
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, last_accuracy
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.space.dimension import Dimension, ParamValue
from nbt.tuning.space.space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FloatArray = NDArray[np.float64]


def space_coordinates(space: Space, settings: TransferSettings) -> FloatArray:
    """Returns repaired settings as a point; the distance of two points is a root mean square over the parameters.

    Numbers are scaled to 0 ... 1 within their range, on the logarithmic scale where the space samples on it. The
    distance between two choices of a categorical dimension is 1.

    Args:
        space: Search space.
        settings: Repaired settings.
    """
    values = [
        coordinate
        for dimension in space.dimensions
        for value in (settings.value(dimension.name) if dimension.knots else (settings.value(dimension.name),))
        for coordinate in _normalised_coordinates(dimension, value)
    ]
    return np.asarray(values) / math.sqrt(len(space.parameters))


def _normalised_coordinates(dimension: Dimension, value: Any) -> list[float]:
    """Returns the coordinates of one value: one per choice of a categorical dimension, else one."""
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
        number: Number in the table of the first entry with these settings.
        settings: Repaired settings.
        params: Sampler parameters of the settings.
        runs: Runs in the order of their seeds, at least one.
    """

    number: int
    settings: TransferSettings
    params: Mapping[str, ParamValue]
    runs: Sequence[RecordedRun]

    @cached_property
    def curves(self) -> tuple[tuple[EpochResult, ...], ...]:
        """Learning curves of the runs without test accuracies, which a search must not see."""
        return tuple(
            tuple(dataclasses.replace(result, watched_accuracy=None) for result in run.curve) for run in self.runs
        )

    def choose_run(self, seed: int) -> int:
        """Returns the index of the run that a replay with this seed uses; it is the same for all methods."""
        return derive_seed(seed, "recorded run", self.number) % len(self.runs)


class TabularBenchmark:
    """The recorded settings of a table as points of a search space.

    If the runs of the table differ in length, `epochs` is a dimension, as in a search that may choose the length.

    Args:
        table: Recorded table with at least one run.
        space: Search space. Dimensions that the table does not vary, such as those of techniques that were added after
            the recording, are fixed at their neutral values.

    Attributes:
        header: Header of the table.
        space: Search space restricted to the dimensions that the table varies.
        settings: Distinct recorded settings.
        points: Coordinates of the settings, (settings, coordinates).
        index: Mapping from settings to their index in `settings`.

    Raises:
        UsageError: The table is empty or of another space, or a run is incomplete or has no validation accuracy.
    """

    def __init__(self, table: RecordedTable, space: Space) -> None:
        table.check_space(space)
        space = space.without(d.name for d in space.dimensions if d.name not in table.header.dimensions)
        if len({run.settings.epochs for run in table.runs}) > 1:
            space = space.with_epochs(table.header.epochs)
        self.header, self.space = table.header, space
        self.settings = _recorded_settings(table, space)
        self.points = np.stack([space_coordinates(space, setting.settings) for setting in self.settings])
        self.index = {setting.settings: i for i, setting in enumerate(self.settings)}

    @property
    def length(self) -> int:
        """Epochs of a full run, or of the default recipe if lengths differ."""
        return self.header.epochs


class CandidatePool:
    """The settings of a benchmark that a replay has not used yet.

    Args:
        benchmark: Benchmark of the task.

    Attributes:
        distances: Mapping from the index of a used setting to its distance from the proposal; None for settings that no
            sampler proposed.
        max_epochs: Settings with longer runs than this are not available, because the budget does not suffice for them.
    """

    def __init__(self, benchmark: TabularBenchmark) -> None:
        self.benchmark = benchmark
        self._lengths = np.array([setting.settings.epochs for setting in benchmark.settings])
        self._unused = np.ones(len(benchmark.settings), dtype=bool)
        self.distances: dict[int, float | None] = {}
        self.max_epochs = math.inf

    def __len__(self) -> int:
        return int(self._is_available.sum())

    @property
    def unused(self) -> list[int]:
        """Indices of the unused settings that the budget suffices for."""
        return [int(i) for i in np.flatnonzero(self._is_available)]

    @property
    def _is_available(self) -> NDArray[np.bool_]:
        """Whether each setting is unused and the budget suffices for it, (settings,)."""
        return self._unused & (self._lengths <= self.max_epochs)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the Optuna distribution of every parameter."""
        return self.benchmark.space.distributions()

    def params(self, setting: int) -> Mapping[str, ParamValue]:
        """Returns the parameters of a setting."""
        return self.benchmark.settings[setting].params

    def nearest_to(self, params: Mapping[str, Any]) -> tuple[int, float]:
        """Returns the index of the unused setting nearest to parameters, and its distance."""
        return self.nearest(self.benchmark.space.settings(params, self.benchmark.length))

    def nearest(self, settings: TransferSettings) -> tuple[int, float]:
        """Returns the index of the nearest unused setting (the lowest one on a tie) and its distance."""
        point = space_coordinates(self.benchmark.space, settings)
        distances = np.linalg.norm(self.benchmark.points - point, axis=1)
        distances[~self._is_available] = np.inf
        index = int(np.argmin(distances))
        return index, float(distances[index])

    def mark_used(self, setting: int, distance: float | None = None) -> None:
        """Marks a setting as used and stores its distance from the proposal."""
        self._unused[setting] = False
        self.distances[setting] = distance


def _recorded_settings(table: RecordedTable, space: Space) -> list[RecordedSetting]:
    """Returns the distinct settings of a table in the order of their numbers, each with all its runs."""
    groups: dict[TransferSettings, list[RecordedRun]] = {}
    for run in sorted(table.runs, key=lambda run: (run.setting, run.seed)):
        _check_run(run, table)
        groups.setdefault(run.settings, []).append(run)
    if not groups:
        raise UsageError(f"{table.source}: no runs in this recorded table")
    try:
        return [RecordedSetting(runs[0].setting, key, space.params(key), runs) for key, runs in groups.items()]
    except UsageError as error:
        raise UsageError(f"{table.source}: a recorded setting is not in space {space.name}: {error}") from error


def _check_run(run: RecordedRun, table: RecordedTable) -> None:
    """Raises UsageError if a run is incomplete or has no validation accuracy."""
    name = f"{table.source}: setting {run.setting}, seed {run.seed}"
    if not run.diverged and len(run.curve) != run.settings.epochs:
        raise UsageError(f"{name}: {len(run.curve)} epochs, but its settings have {run.settings.epochs}")
    if last_accuracy(run.curve) is None:
        raise UsageError(f"{name}: no validation accuracy, which a replay needs")
