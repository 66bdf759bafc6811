"""A simulated search on a generic table of learning curves: trains a setting epoch by epoch within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbt.tuning.benchmark.curves.table import CurveTask, FloatArray
from nbt.tuning.benchmark.metrics import regret_unit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class BudgetSpentError(Exception):
    """The budget of a simulated search is spent, or every setting has been trained."""


class CurveSearch:
    """A simulated search; a method trains settings with it until `BudgetSpentError`.

    It is also the pool of `nbt.tuning.benchmark.nearest_sampler.NearestRecordedSampler`.

    Args:
        task: The task.
        epochs: Budget in epochs.

    Attributes:
        trained: Epochs that each setting has been trained for, by its index, in the order of their start.
        path: Index of the incumbent after each epoch, (epochs,). The incumbent is the setting with the best score among
            those trained to their end; before there is one, the best of all at their last epoch.
        costs: Cost of each epoch, in full runs, (epochs,).
        last_proposal: Index of the setting that was last marked as used.
    """

    def __init__(self, task: CurveTask, epochs: int) -> None:
        self.task, self._epochs = task, epochs
        self.trained: dict[int, int] = {}
        self.path: list[int] = []
        self.costs: list[float] = []
        self.last_proposal = -1
        self._points = task.points()
        self._unused = np.ones(len(task), dtype=bool)
        self._best: tuple[bool, float] = (False, -np.inf)
        self._incumbent = -1

    def train(self, setting: int) -> float:
        """Trains a setting for one more epoch and returns its score after it, -inf if it has diverged.

        Raises:
            BudgetSpentError: The budget is spent.
        """
        if len(self.path) >= self._epochs:
            raise BudgetSpentError
        self._unused[setting] = False
        epoch = self.trained.get(setting, 0)
        self.trained[setting] = epoch + 1
        score = float(self.task.scores[setting, epoch])
        rank = (self.is_complete(setting), score)
        if self._incumbent in (-1, setting) or rank > self._best:
            # The incumbent's own rank may fall while it trains; the best of the others then takes its place.
            self._best, self._incumbent = max(
                ((self.is_complete(other), self.score(other)), other) for other in self.trained
            )
        self.path.append(self._incumbent)
        self.costs.append(float(self.task.costs[setting, epoch]))
        return score

    def score(self, setting: int) -> float:
        """Returns the score of a setting after its last epoch so far."""
        return float(self.task.scores[setting, self.trained[setting] - 1])

    def is_complete(self, setting: int) -> bool:
        """Returns whether a setting has been trained to its end without diverging."""
        return self.trained.get(setting, 0) == self.task.length and bool(np.isfinite(self.task.scores[setting, -1]))

    @property
    def unused(self) -> list[int]:
        """Indices of the settings that no trial has used.

        Raises:
            BudgetSpentError: There is none.
        """
        unused = np.flatnonzero(self._unused).tolist()
        if not unused:
            raise BudgetSpentError
        return [int(index) for index in unused]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the Optuna distributions of the hyperparameters."""
        return self.task.distributions()

    def params(self, setting: int) -> Mapping[str, Any]:
        """Returns the hyperparameters of a setting."""
        return self.task.params(setting)

    def nearest_to(self, params: dict[str, Any]) -> tuple[int, float]:
        """Returns the index of the nearest unused setting and its distance."""
        unused = self.unused
        distances = np.linalg.norm(self._points[unused] - self.task.point_of(params), axis=1)
        nearest = int(np.argmin(distances))
        return unused[nearest], float(distances[nearest])

    def mark_used(self, setting: int, distance: float | None = None) -> None:
        """Marks a setting as used."""
        self._unused[setting] = False
        self.last_proposal = setting

    def regret(self) -> FloatArray:
        """Returns the normalised regret after each epoch of the budget, (epochs,).

        It is the difference between the best last value of the judging curve in the table and that of the incumbent, in
        units of the difference between the best and the median (`nbt.tuning.benchmark.metrics.regret_unit` says what
        counts where they are equal), at most 1.
        """
        last = self.task.judged[:, -1]
        path: NDArray[np.int64] = np.array([*self.path, *[self.path[-1]] * (self._epochs - len(self.path))])
        return np.minimum((float(last.max()) - last[path]) / regret_unit(last), 1.0)
