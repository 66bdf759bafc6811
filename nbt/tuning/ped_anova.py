"""PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255) of many resamples of the same trials at once.

The numbers are those of Optuna's `PedAnovaImportanceEvaluator`, which evaluates one sample at a time in Python and
imports scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_MAX_CELLS = 50
# A bandwidth with which 90 % of a kernel lie within one cell.
_MIN_BANDWIDTH = 0.5 / 1.64
_MIN_DENSITY = 1e-12
_MIN_TRIALS_IN_RANGE = 2


@dataclass(frozen=True, eq=False)
class Grid:
    """The trials that drew a parameter from one range, in the cells of a grid over this range.

    Attributes:
        cells: Number of each trial's cell, (trials,); -1 for trials that drew it from another range.
        size: Number of cells, at least 2.
        ordered: Whether the cells are intervals of numbers, and not choices.
    """

    cells: IntArray
    size: int
    ordered: bool

    def count(self, drawn: IntArray, counted: NDArray[np.bool_]) -> FloatArray:
        """Returns the number of counted trials of each sample in each cell, (samples, cells).

        Args:
            drawn: Indices of the trials of each sample, (samples, trials).
            counted: Whether a trial counts, of the same shape.
        """
        cells = self.cells[drawn]
        flat = (np.arange(len(drawn))[:, None] * self.size + cells)[counted & (cells >= 0)]
        return np.bincount(flat, minlength=len(drawn) * self.size).reshape(len(drawn), self.size).astype(float)

    def density(self, counts: FloatArray) -> FloatArray:
        """Returns the density of a Parzen estimator with one prior kernel, (samples, cells).

        Args:
            counts: Number of trials of each sample in each cell, (samples, cells), at least one in each sample.
        """
        total = counts.sum(1, keepdims=True)
        if self.ordered:
            return np.asarray((_kernels(counts, _bandwidth(counts)) + _prior_kernel(self.size)) / (total + 1))
        n_kernels = 1 + (counts > 0).sum(1, keepdims=True)
        observed = (counts + total / n_kernels) / (1 + self.size / n_kernels)
        return np.asarray((observed + 1 / self.size) / (total + 1))


def grids_of(trials: Sequence[FrozenTrial]) -> dict[str, list[Grid]]:
    """Returns the grids of each parameter of trials; a range of a single value has none."""
    names = dict.fromkeys(name for trial in trials for name in trial.distributions)
    return {name: _grids_of_parameter(trials, name) for name in names}


def ped_anova(grids: Mapping[str, Sequence[Grid]], drawn: IntArray, best: NDArray[np.bool_]) -> FloatArray:
    """Returns the importance of each parameter for being among the best trials, (samples, parameters), not normalised.

    Args:
        grids: Result of `grids_of`.
        drawn: Indices of the trials of each sample, (samples, trials).
        best: Whether a trial is among the best of its sample, of the same shape.
    """
    columns = [
        sum((_divergence(grid, drawn, best) for grid in found), np.zeros(len(drawn))) for found in grids.values()
    ]
    return np.stack(columns, axis=1)


def _divergence(grid: Grid, drawn: IntArray, best: NDArray[np.bool_]) -> FloatArray:
    """Returns the weighted Pearson divergence of the best trials from all trials of each sample, (samples,)."""
    counts, counts_best = grid.count(drawn, np.ones_like(best)), grid.count(drawn, best)
    n, n_best = counts.sum(1), counts_best.sum(1)
    result, defined = np.zeros(len(drawn)), (n >= _MIN_TRIALS_IN_RANGE) & (n_best > 0)
    density = grid.density(counts[defined]) + _MIN_DENSITY
    ratio = (grid.density(counts_best[defined]) + _MIN_DENSITY) / density
    divergence = (density * (ratio - 1) ** 2).sum(1)
    result[defined] = divergence * n_best[defined] ** 2 / (n[defined] * drawn.shape[1])
    return result


def _grids_of_parameter(trials: Sequence[FrozenTrial], name: str) -> list[Grid]:
    ranges: list[tuple[BaseDistribution, list[int]]] = []
    members: dict[int, list[int]] = {}  # most trials share the objects of their ranges, which take long to compare
    for index, trial in enumerate(trials):
        if (drawn_from := trial.distributions.get(name)) is None:
            continue
        if id(drawn_from) not in members:
            equal = next((found for known, found in ranges if known == drawn_from), None)
            if equal is None:
                ranges.append((drawn_from, equal := []))
            members[id(drawn_from)] = equal
        members[id(drawn_from)].append(index)
    return [_grid(known, trials, name, np.array(found)) for known, found in ranges if not known.single()]


def _grid(drawn_from: BaseDistribution, trials: Sequence[FrozenTrial], name: str, indices: IntArray) -> Grid:
    values = [trials[index].params[name] for index in indices.tolist()]
    cells = np.full(len(trials), -1)
    if isinstance(drawn_from, CategoricalDistribution):
        numbers = {value: int(drawn_from.to_internal_repr(value)) for value in set(values)}
        cells[indices] = [numbers[value] for value in values]
        return Grid(cells, len(drawn_from.choices), ordered=False)
    size = _number_of_cells(drawn_from)
    low, high, log = (getattr(drawn_from, attribute) for attribute in ("low", "high", "log"))
    low, high = (math.log(low), math.log(high)) if log else (low, high)
    positions = (np.log if log else np.asarray)(values)
    # As in Optuna, a value between two cells belongs to the lower one.
    numbers_of_cells = np.ceil((positions - low) / ((high - low) / (size - 1)) - 0.5).astype(int)
    cells[indices] = np.clip(numbers_of_cells, 0, size - 1)
    return Grid(cells, size, ordered=True)


def _number_of_cells(drawn_from: BaseDistribution) -> int:
    if not isinstance(drawn_from, IntDistribution):
        return _MAX_CELLS
    count = drawn_from.high - drawn_from.low + 1
    return min(int(np.ceil(np.log(count) / np.log(2))) + 1 if drawn_from.log else count, _MAX_CELLS)


def _bandwidth(counts: FloatArray) -> FloatArray:
    """Returns the bandwidth by Scott's rule in cells, (samples, 1)."""
    positions, total, below = np.arange(counts.shape[1]), counts.sum(1, keepdims=True), counts.cumsum(1)
    mean = (counts * positions).sum(1, keepdims=True) / total
    variance = (counts * (positions - mean) ** 2).sum(1, keepdims=True) / np.maximum(1, total - 1)
    first = (below < np.maximum(total // 4, 1)).sum(1, keepdims=True)
    third = (below <= total * 3 // 4).sum(1, keepdims=True)
    width = 1.059 * np.minimum((third - first) / 1.34, np.sqrt(variance)) * total**-0.2
    return np.asarray(np.maximum(width, _MIN_BANDWIDTH))


def _kernels(counts: FloatArray, bandwidth: FloatArray) -> FloatArray:
    """Returns the sum of a truncated normal density per trial over the cells, (samples, cells)."""
    from scipy.special import ndtr

    size = counts.shape[1]
    below = ndtr((np.arange(-size, size) + 0.5) / bandwidth)
    cells = np.arange(size)
    offset = cells[None] - cells[:, None] + size - 1  # of the lower end of a cell from the centre of a kernel
    mass = below[:, offset + 1] - below[:, offset]
    return np.asarray(((counts / mass.sum(2))[:, None] @ mass)[:, 0])


def _prior_kernel(size: int) -> FloatArray:
    """Returns the truncated normal density of the prior over the cells, (cells,)."""
    from scipy.special import ndtr

    mass = np.diff(ndtr((np.arange(size + 1) - size / 2) / size))
    return np.asarray(mass / mass.sum())
