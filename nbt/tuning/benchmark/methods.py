"""Registry of the search methods that a replay compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import optuna

from nbt.errors import UsageError, nearest
from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.controller import SamplerFactory, tpe
from nbt.tuning.experience.dataset_names import is_same_dataset
from nbt.tuning.experience.recorded_table import RecordedTable, TableHeader
from nbt.tuning.pruners.base import NoPruner, Pruner, make_pruner
from nbt.tuning.pruners.curve_forecast import expected_scores
from nbt.tuning.pruners.optuna_pruners import hyperband_pruner, median_pruner
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.surrogate.task_similarity import target_from_header, task_similarity
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler
from nbt.tuning.tuned_recipes import TUNED_DEFAULT, searched_tuned_default


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchComponents:
    """The components of the controller for one search of a method.

    Attributes:
        sampler: Function that creates the sampler from a seed.
        pruner: Pruner of the search.
        initial_settings: Settings to run after the baseline recipes, with their names.
    """

    sampler: SamplerFactory
    pruner: Pruner = field(default_factory=NoPruner)
    initial_settings: Sequence[tuple[str, TransferSettings]] = ()


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """The information that a method has before a search; it includes no recorded result of training on the task.

    The tuned default, which some methods run first, was found on the datasets of `studies/tuned_default.py`.

    Attributes:
        header: Header of the task's table: facts of the dataset, backbone, fit profile, epochs of a trial.
        space: Search space.
        experience: Complete recorded tables of other tasks.
        seed: Seed of the search.
        settings: Recorded settings, from which the recommendation is chosen.
    """

    header: TableHeader
    space: Space
    experience: Sequence[RecordedTable]
    seed: int
    settings: Sequence[TransferSettings]

    @property
    def target(self) -> Target:
        """Target with the facts and the profile of the task."""
        return target_from_header(self.header)

    @property
    def equal_lengths(self) -> bool:
        """Whether all runs of the table have the same length."""
        return self.space.epochs is None


@dataclass(frozen=True, kw_only=True)
class SearchMethod:
    """One search method.

    Attributes:
        name: Name for users.
        description: One sentence for users.
        build: Function that creates the components of one search from its context.
        runs_baselines: Whether a search starts with the baseline recipes, as every live search does. Only plain random
            search, the reference without any prior knowledge, does not.
        ablation: Whether the method is a part or a variation of another one; ablations run only if they are named.
    """

    name: str
    description: str
    build: Callable[[SearchContext], SearchComponents]
    runs_baselines: bool = True
    ablation: bool = False


RECOMMENDATION_NAME = "from profile and experience"

_METHODS: dict[str, SearchMethod] = {}


def register_method(method: SearchMethod) -> SearchMethod:
    """Adds a method to the registry and returns it; a method of the same name is replaced."""
    _METHODS[method.name] = method
    return method


def method_names(*, ablations: bool = True) -> tuple[str, ...]:
    """Returns the names of the methods, with or without ablations, in the order of their registration."""
    return tuple(name for name, method in _METHODS.items() if ablations or not method.ablation)


def get_method(name: str) -> SearchMethod:
    """Returns a method by its name.

    Raises:
        UsageError: There is no such method; the message names the nearest ones.
    """
    if name not in _METHODS:
        raise UsageError(f"unknown method {name!r}; {nearest(name, method_names())}")
    return _METHODS[name]


def leave_dataset_out(tables: Sequence[RecordedTable], evaluated: RecordedTable) -> list[RecordedTable]:
    """Returns the tables that a method may use when it is evaluated on one of them.

    The evaluated table is left out, and so is every other table of the same dataset; see `is_same_dataset`.

    Args:
        tables: All recorded tables.
        evaluated: The table of the task.
    """
    return [table for table in tables if not is_same_dataset(table.header, evaluated.header)]


class _UniformPoolSampler(optuna.samplers.RandomSampler):
    """Sampler that draws unused recorded settings uniformly, which are random settings themselves.

    It implements `nbt.tuning.benchmark.nearest_sampler.PoolSampler`.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._pool_rng = np.random.default_rng(seed)

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns a random index."""
        return int(self._pool_rng.integers(len(candidates)))


def _bayesian(
    *,
    heuristics: bool = True,
    tables: bool = True,
    pruner: bool = True,
    prior_scale: float = 1.0,
    cost_floor: float | None = None,
    target: Callable[[SearchContext], Target] = lambda context: context.target,
) -> Callable[[SearchContext], SearchComponents]:
    """Returns a function that builds the default search, or a part or a variation of it.

    Args:
        heuristics: Whether the surrogate uses the priors.
        tables: Whether surrogate and pruner use recorded tasks, and the search the tuned default, which was found on
            such tasks.
        pruner: Whether the fit pruner stops trials.
        prior_scale: Factor on the weights of all sources; see `PriorSurrogate`.
        cost_floor: See `BayesianSampler`.
        target: Function that returns the target that the search assumes.
    """

    def build(context: SearchContext) -> SearchComponents:
        priors = _transferred_priors(tuple(context.experience) if tables else ())
        assumed = target(context)
        surrogate = priors.surrogate(assumed, context.space, heuristics=heuristics, prior_scale=prior_scale)
        tuned = _tuned_default(context) if tables else []
        named = [settings for _, settings in (*baseline_recipes(assumed.epochs), *tuned)]
        recommended = surrogate.recommend(context.settings, without=named)
        return SearchComponents(
            sampler=lambda sampler_seed: make_sampler(surrogate, sampler_seed, cost_floor=cost_floor),
            pruner=_fit_pruner(context, priors, assumed) if pruner else NoPruner(),
            initial_settings=[*tuned, (RECOMMENDATION_NAME, recommended)],
        )

    return build


def _tuned_default(context: SearchContext) -> list[tuple[str, TransferSettings]]:
    """Returns the tuned default with its name; nothing if it was not recorded."""
    settings = searched_tuned_default(context.header.epochs, equal_lengths=context.equal_lengths)
    return [(TUNED_DEFAULT, settings)] if settings in context.settings else []


def _target_without_profile(context: SearchContext) -> Target:
    """Returns the target without facts and fit profile, but for the number of validation images."""
    images = {VALIDATION_IMAGES: context.target.validation_images}
    return replace(context.target, facts=images, scalars={}, layers=())


def _least_similar_target(context: SearchContext) -> Target:
    """Returns the target of the least similar recorded task, with what this task has beside facts and profile.

    These are the epochs, the number of validation images and the backbone.
    """
    others = [target_from_header(table.header) for table in context.experience]
    if not others:
        return context.target
    other = min(others, key=lambda candidate: task_similarity(context.target, candidate))
    images = {VALIDATION_IMAGES: context.target.validation_images}
    own = context.target
    return replace(other, epochs=own.epochs, backbone=own.backbone, facts={**other.facts, **images})


class _PortfolioSampler(_UniformPoolSampler):
    """Sampler that proposes settings in the order of their expected score without a fit profile; it never adapts."""

    def __init__(self, context: SearchContext, seed: int) -> None:
        super().__init__(seed)
        self._context = context
        experience = _transferred_priors(tuple(context.experience)).experience
        self._expected = expected_scores(experience, replace(context.target, facts={}, scalars={}, layers=()))

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns the index of the candidate with the greatest expected score."""
        space, length = self._context.space, self._context.header.epochs
        return int(np.argmax(self._expected([space.settings(params, length) for params in candidates])))


@lru_cache(maxsize=8)
def _transferred_priors(tables: tuple[RecordedTable, ...]) -> TransferredPriors:
    """Returns the priors of some tables, which all methods and seeds share."""
    return TransferredPriors(tables)


def _tpe_with_fit_pruner(context: SearchContext) -> SearchComponents:
    priors = _transferred_priors(tuple(context.experience))
    return SearchComponents(sampler=tpe, pruner=_fit_pruner(context, priors, context.target))


def _fit_pruner(context: SearchContext, priors: TransferredPriors, target: Target) -> Pruner:
    """Returns the fit pruner of a search, or ASHA if the priors have no recorded curves."""
    length, seed = context.header.epochs, context.seed
    return priors.pruner(target, length=length, seed=seed, equal_lengths=context.equal_lengths)


def _asha(context: SearchContext) -> Pruner:
    return make_pruner("asha", context.header.epochs, equal_lengths=context.equal_lengths)


def _longest(context: SearchContext) -> int:
    """Returns the number of epochs of the longest recorded run."""
    return max(settings.epochs for settings in context.settings)


for _method in (
    SearchMethod(
        name="random",
        description="Random settings; no pruning and no baseline recipes.",
        build=lambda context: SearchComponents(sampler=_UniformPoolSampler),
        runs_baselines=False,
    ),
    SearchMethod(
        name="asha",
        description="Random settings; the lower half of the trials is stopped at one third and at two thirds.",
        build=lambda context: SearchComponents(sampler=_UniformPoolSampler, pruner=_asha(context)),
    ),
    SearchMethod(name="tpe", description="TPE; no pruning.", build=lambda context: SearchComponents(sampler=tpe)),
    SearchMethod(
        name="tpe+median",
        description="TPE; a trial below the median of earlier trials is stopped.",
        build=lambda context: SearchComponents(sampler=tpe, pruner=median_pruner(context.header.epochs)),
    ),
    SearchMethod(
        name="tpe+hyperband",
        description="TPE; Hyperband with a minimum resource of one epoch.",
        build=lambda context: SearchComponents(sampler=tpe, pruner=hyperband_pruner(_longest(context))),
    ),
    SearchMethod(
        name="tpe+asha",
        description="TPE; the lower half of the trials is stopped at one third and at two thirds.",
        build=lambda context: SearchComponents(sampler=tpe, pruner=_asha(context)),
    ),
    SearchMethod(
        name="guided",
        description="The default: Bayesian optimisation with priors and recorded tasks; the fit pruner stops trials.",
        build=_bayesian(),
    ),
    *(
        SearchMethod(name=name, description=description, build=build, ablation=True)
        for name, description, build in (
            ("priors alone", "Guided without pruning.", _bayesian(pruner=False)),
            ("pruner alone", "TPE with the fit pruner.", _tpe_with_fit_pruner),
            ("learned alone", "Guided with recorded tasks but without priors.", _bayesian(heuristics=False)),
            (
                "rules alone",
                "Guided with priors but without recorded tasks and tuned default; as ASHA, it stops the lower half.",
                _bayesian(tables=False),
            ),
            ("gain per cost", "Guided; proposals by expected improvement per cost.", _bayesian(cost_floor=0.5)),
            (
                "without profile",
                "Guided without the facts and the profile of the task.",
                _bayesian(target=_target_without_profile),
            ),
            (
                "wrong profile",
                "Guided with the facts and the profile of the least similar task.",
                _bayesian(target=_least_similar_target),
            ),
            ("inverted", "Guided with the prior mean negated.", _bayesian(prior_scale=-1.0)),
            (
                "portfolio",
                "Settings in the order of their expected score on recorded tasks; no pruning, no profile and no "
                "model of the task.",
                lambda context: SearchComponents(sampler=lambda seed: _PortfolioSampler(context, seed)),
            ),
        )
    ),
):
    register_method(_method)
