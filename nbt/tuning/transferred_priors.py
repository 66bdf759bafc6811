"""TransferredPriors: what recorded tables teach a search, each part made when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.pruners.base import AshaPruner, Pruner
from nbt.tuning.pruners.curve_forecast import CurveForecaster, has_usable_curves
from nbt.tuning.pruners.fit_pruner import FitPruner
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.surrogate.task_model import TaskModel
from nbt.tuning.target import Target


class TransferredPriors:
    """Models of recorded tasks.

    Args:
        tables: Any number of them.
    """

    def __init__(self, tables: Sequence[RecordedTable]) -> None:
        self.tables = tuple(tables)

    @cached_property
    def models_by_table(self) -> list[TaskModel | None]:
        """The model of each table; None where it has too few settings."""
        return [TaskModel.of(table) for table in self.tables]

    @property
    def models(self) -> list[TaskModel]:
        """The models that there are."""
        return [model for model in self.models_by_table if model is not None]

    @cached_property
    def forecaster(self) -> CurveForecaster | None:
        """Who forecasts curves; None without recorded ones."""
        useful = self.models and any(map(has_usable_curves, self.tables))
        return CurveForecaster(self.tables, self.models_by_table) if useful else None

    def surrogate(
        self, target: Target, space: Space, *, heuristics: bool = True, prior_scale: float = 1.0
    ) -> PriorSurrogate:
        """Returns the guide of a search; see `PriorSurrogate`."""
        return PriorSurrogate(target, space, self.models, heuristics=heuristics, prior_scale=prior_scale)

    def pruner(self, target: Target, *, length: int, seed: int) -> Pruner:
        """Returns the fit pruner of a search, ASHA where no curves are recorded to learn from."""
        if self.forecaster is None:
            return AshaPruner(length)
        return FitPruner(self.forecaster, self.models, target, length=length, seed=seed)


def make_sampler(surrogate: PriorSurrogate, seed: int) -> BayesianSampler:
    """Returns the guided sampler of a search."""
    target = surrogate.target
    return BayesianSampler(surrogate, surrogate.space, length=target.epochs, images=target.validation_images, seed=seed)
