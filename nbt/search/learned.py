"""Learned: what recorded tables teach a search, each part made when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from nbt.search.curve_forecast import CurveForecaster, teaches
from nbt.search.fit_pruner import FitPruner
from nbt.search.guide import Guide
from nbt.search.guided import GuidedSampler
from nbt.search.pruner import Asha, Pruner
from nbt.search.recorded import RecordedTable
from nbt.search.space import Space
from nbt.search.target import Target
from nbt.search.task_model import TaskModel


class Learned:
    """Models of recorded tasks.

    Args:
        tables: Any number of them.
    """

    def __init__(self, tables: Sequence[RecordedTable]) -> None:
        self.tables = tuple(tables)

    @cached_property
    def by_table(self) -> list[TaskModel | None]:
        """The model of each table; None where it has too few settings."""
        return [TaskModel.of(table) for table in self.tables]

    @property
    def models(self) -> list[TaskModel]:
        """The models that there are."""
        return [model for model in self.by_table if model is not None]

    @cached_property
    def forecaster(self) -> CurveForecaster | None:
        """Who forecasts curves; None without recorded ones."""
        useful = self.models and any(map(teaches, self.tables))
        return CurveForecaster(self.tables, self.by_table) if useful else None

    def guide(self, target: Target, space: Space, *, heuristics: bool = True, trust: float = 1.0) -> Guide:
        """Returns the guide of a search; see `Guide`."""
        return Guide(target, space, self.models, heuristics=heuristics, trust=trust)

    def pruner(self, target: Target, *, length: int, seed: int) -> Pruner:
        """Returns the fit pruner of a search, ASHA where no curves are recorded to learn from."""
        if self.forecaster is None:
            return Asha(length)
        return FitPruner(self.forecaster, self.models, target, length=length, seed=seed)


def sampler(guide: Guide, seed: int) -> GuidedSampler:
    """Returns the guided sampler of a search."""
    target = guide.target
    return GuidedSampler(guide, guide.space, length=target.epochs, images=target.validation_images, seed=seed)
