"""Models, surrogate, pruner and sampler learned from recorded tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from nbt.tuning.engines.cpu_threads import single_threaded
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.model_cache import ModelCache
from nbt.tuning.priors.prior import Prior
from nbt.tuning.pruners.base import Pruner, make_pruner
from nbt.tuning.pruners.curve_forecast import CurveForecaster, has_usable_curves
from nbt.tuning.pruners.fit_pruner import FitPruner
from nbt.tuning.relative_cost import CostModel
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.space.space import Space
from nbt.tuning.storage.candidates import CandidateRecord
from nbt.tuning.surrogate.backbone_surrogate import BackboneSurrogate
from nbt.tuning.surrogate.experience_model import ExperienceModel
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target

# Without it, the cheapest trials would win.
COST_FLOOR = 0.5


class TransferredPriors:
    """Models of recorded tasks, fitted when they are first used.

    Args:
        tables: Recorded tables; may be empty.
        is_cached: Whether `fit` uses the cache; the tables are then those of files.
    """

    def __init__(self, tables: Sequence[RecordedTable], *, is_cached: bool = False) -> None:
        self.tables, self._is_cached = tuple(tables), is_cached

    @cached_property
    def experience(self) -> ExperienceModel | None:
        """The model of all tables; None if they have too few settings."""
        with single_threaded():
            return ExperienceModel.fit(self.tables)

    @property
    def is_fitted(self) -> bool:
        """Whether there is nothing left to fit."""
        return not self.tables or "forecaster" in self.__dict__

    def read_cache(self) -> None:
        """Takes the forecaster from the cache if it has it.

        Raises:
            OSError: The file of a table has disappeared.
        """
        if self._cache is None or self.is_fitted:
            return
        with single_threaded():
            found = self._cache.read()
        if found is not None:
            self.forecaster = found

    def fit(self) -> None:
        """Fits the forecaster now, or takes it from the cache, rather than when it is first used.

        Raises:
            OSError: The file of a table has disappeared.
        """
        self.read_cache()
        if self.is_fitted:
            return
        if self.forecaster is not None and self._cache is not None:
            self._cache.write(self.forecaster)

    @cached_property
    def _cache(self) -> ModelCache | None:
        return ModelCache(self.tables) if self._is_cached and self.tables else None

    @cached_property
    def forecaster(self) -> CurveForecaster | None:
        """The forecaster of learning curves; None if there is no model or no usable recorded curve."""
        usable = self.experience is not None and any(map(has_usable_curves, self.tables))
        with single_threaded():
            return CurveForecaster.fit(self.tables) if usable else None

    def surrogate(
        self,
        target: Target,
        space: Space,
        *,
        heuristics: bool = True,
        prior_scale: float = 1.0,
        beliefs: Sequence[Prior] = (),
    ) -> PriorSurrogate:
        """Returns the prior surrogate of a search; the arguments are those of `PriorSurrogate`."""
        return PriorSurrogate(
            target, space, self.experience, heuristics=heuristics, prior_scale=prior_scale, beliefs=beliefs
        )

    def backbone_surrogate(
        self,
        targets: Mapping[str, Target],
        candidates: Sequence[CandidateRecord],
        space: Space,
        *,
        beliefs: Sequence[Prior] = (),
    ) -> PriorSurrogate:
        """Returns the prior surrogate of a search over several backbones.

        Args:
            targets: Targets by the setting `backbone`, that of the reference, "", first.
            candidates: What is known of the backbones, in the same order.
            space: Search space.
            beliefs: As in `PriorSurrogate`.
        """
        return BackboneSurrogate(targets, candidates, space, self.experience, beliefs=beliefs)

    def pruner(
        self,
        target: Target,
        *,
        length: int,
        seed: int,
        equal_lengths: bool = True,
        others: Mapping[str, Target] | None = None,
    ) -> Pruner:
        """Returns the fit pruner of a search, or ASHA if there are no usable recorded curves.

        Args:
            target: The target task.
            others: Targets of other backbones by the setting `backbone`.
            length: Epochs of a full trial.
            seed: Seed of the pruner.
            equal_lengths: Whether all trials have this length.
        """
        if self.forecaster is None:
            return make_pruner("asha", length, target.metric, equal_lengths=equal_lengths)
        return FitPruner(self.forecaster, self.experience, target, seed=seed, others=others)


def make_sampler(
    surrogate: PriorSurrogate, seed: int, *, cost_floor: float | None = None, cost_model: CostModel | None = None
) -> BayesianSampler:
    """Returns the Bayesian-optimisation sampler of a search.

    Args:
        surrogate: The prior surrogate of the search.
        seed: Seed of the sampler.
        cost_floor: See `BayesianSampler`; when None, `COST_FLOOR` if the costs of trials are known or their lengths or
            backbones differ.
        cost_model: See `BayesianSampler`.
    """
    target, space = surrogate.target, surrogate.space
    if cost_floor is None and (cost_model is not None or space.epochs is not None or surrogate.backbone_costs):
        cost_floor = COST_FLOOR
    return BayesianSampler(
        surrogate,
        space,
        length=target.epochs,
        images=target.validation_images,
        seed=seed,
        cost_floor=cost_floor,
        cost_model=cost_model,
    )
