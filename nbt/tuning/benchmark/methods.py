"""Methods: the ways to search that a replay compares, by name."""

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
from nbt.tuning.experience.recorded_table import RecordedTable, TableHeader
from nbt.tuning.pruners.base import AshaPruner, NoPruner, Pruner
from nbt.tuning.pruners.curve_forecast import mean_task_prediction
from nbt.tuning.pruners.optuna_pruners import hyperband_pruner, median_pruner
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.surrogate.task_model import target_from_header, task_similarity
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchComponents:
    """What a method puts into the controller for one search.

    Attributes:
        sampler: Seed -> who proposes settings.
        pruner: Who stops trials early.
        first: Settings to run after the anchors, by name.
    """

    sampler: SamplerFactory
    pruner: Pruner = field(default_factory=NoPruner)
    first: Sequence[tuple[str, TransferSettings]] = ()


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """What a method may know before a search begins; nothing that was measured by training on the task.

    Attributes:
        header: Of the task: facts of the dataset, backbone, fit profile, length of a trial.
        space: What is searched.
        experience: Recorded tables of other tasks, whole.
        seed: Of the search.
        settings: That can be run, which is what a recommendation is chosen from.
    """

    header: TableHeader
    space: Space
    experience: Sequence[RecordedTable]
    seed: int
    settings: Sequence[TransferSettings]

    @property
    def target(self) -> Target:
        """What is known of the task."""
        return Target.of(self.header.facts, self.header.profile, self.header.epochs)


@dataclass(frozen=True, kw_only=True)
class SearchMethod:
    """One way to search.

    Attributes:
        name: What users call it.
        description: One sentence.
        build: Makes it for one search.
        anchors: Whether it starts with the anchors, as every live search does. Plain random search does not: it is
            the yardstick that needs no knowledge at all. The others start alike, so that they differ in what they
            are named after.
        ablation: Whether it is a part or a variation of another, which runs only when it is named.
    """

    name: str
    description: str
    build: Callable[[SearchContext], SearchComponents]
    runs_baselines: bool = True
    ablation: bool = False


RECOMMENDATION_NAME = "from profile and experience"

_METHODS: dict[str, SearchMethod] = {}


def register(method: SearchMethod) -> SearchMethod:
    """Adds a method, and returns it; a second one of the same name takes its place."""
    _METHODS[method.name] = method
    return method


def method_names(*, ablations: bool = True) -> tuple[str, ...]:
    """Returns the names of all methods, or of those that are no ablations, in the order of their registration."""
    return tuple(name for name, method in _METHODS.items() if ablations or not method.ablation)


def get_method(name: str) -> SearchMethod:
    """Returns a method by its name.

    Raises:
        UsageError: There is none; the nearest are given.
    """
    if name not in _METHODS:
        raise UsageError(f"unknown method {name!r}; {nearest(name, method_names())}")
    return _METHODS[name]


def leave_dataset_out(tables: Sequence[RecordedTable], evaluated: RecordedTable) -> list[RecordedTable]:
    """Returns the tables that a method may know when it is evaluated on one of them.

    Left out are the table itself and every other one of the same images or of the same dataset by name: what is
    known of a dataset through another backbone, other shots or another recording is still known of that dataset.
    """
    mine = evaluated.header
    return [
        table
        for table in tables
        if table is not evaluated and table.header.data_hash != mine.data_hash and table.header.dataset != mine.dataset
    ]


class _UniformPoolSampler(optuna.samplers.RandomSampler):
    """Draws recorded settings themselves (`nbt.tuning.benchmark.nearest_sampler.ChoosesFromPool`): they were drawn at random."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._pool_rng = np.random.default_rng(seed)

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns any index."""
        return int(self._pool_rng.integers(len(candidates)))


def _random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    return _UniformPoolSampler(seed)


register(
    SearchMethod(
        name="random",
        description="Random settings to full length, without anchors.",
        build=lambda known: SearchComponents(sampler=_random_sampler),
        runs_baselines=False,
    )
)
register(
    SearchMethod(
        name="asha",
        description="Random settings; the lower half is stopped at a third and at two thirds.",
        build=lambda known: SearchComponents(sampler=_random_sampler, pruner=AshaPruner(known.header.epochs)),
    )
)
register(SearchMethod(name="tpe", description="TPE to full length.", build=lambda known: SearchComponents(sampler=tpe)))
register(
    SearchMethod(
        name="tpe+median",
        description="TPE; stopped under the median of earlier trials.",
        build=lambda known: SearchComponents(sampler=tpe, pruner=median_pruner(known.header.epochs)),
    )
)
register(
    SearchMethod(
        name="tpe+hyperband",
        description="TPE; Hyperband's brackets from one epoch on.",
        build=lambda known: SearchComponents(sampler=tpe, pruner=hyperband_pruner(known.header.epochs)),
    )
)
register(
    SearchMethod(
        name="tpe+asha",
        description="TPE; the lower half is stopped at a third and at two thirds.",
        build=lambda known: SearchComponents(sampler=tpe, pruner=AshaPruner(known.header.epochs)),
    )
)


def _bayesian(
    *,
    heuristics: bool = True,
    tables: bool = True,
    pruner: bool = True,
    prior_scale: float = 1.0,
    target: Callable[[SearchContext], Target] = lambda known: known.target,
) -> Callable[[SearchContext], SearchComponents]:
    """Returns what makes the guided search, or a part or a variation of it.

    Args:
        heuristics: Whether the rules speak.
        tables: Whether recorded tasks do; the pruner has them in any case.
        pruner: Whether trials are stopped.
        prior_scale: See `Guide`.
        target: What it is told of the task.
    """

    def build(known: SearchContext) -> SearchComponents:
        learned, told = _transferred_priors(tuple(known.experience)), target(known)
        priors = learned if tables else TransferredPriors(())
        surrogate = priors.surrogate(told, known.space, heuristics=heuristics, prior_scale=prior_scale)
        fixed = [settings for _, settings in baseline_recipes(told.epochs)]
        return SearchComponents(
            sampler=lambda seed: make_sampler(surrogate, seed),
            pruner=learned.pruner(told, length=known.header.epochs, seed=known.seed) if pruner else NoPruner(),
            first=[(RECOMMENDATION_NAME, surrogate.recommend(known.settings, without=fixed))],
        )

    return build


def _least_similar_target(known: SearchContext) -> Target:
    """Returns what is known of another task, the least like this one; the number of images stays."""
    others = [target_from_header(table.header) for table in known.experience]
    if not others:
        return known.target
    other = min(others, key=lambda one: task_similarity(known.target, one))
    images = {VALIDATION_IMAGES: known.target.validation_images}
    return replace(other, epochs=known.target.epochs, facts={**other.facts, **images})


class _PortfolioSampler(_UniformPoolSampler):
    """Tries settings in the order of their mean merit on the recorded tasks, whatever comes of them."""

    def __init__(self, known: SearchContext, seed: int) -> None:
        super().__init__(seed)
        self._known = known

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns the index of the best on average."""
        space, length = self._known.space, self._known.header.epochs
        models = _transferred_priors(tuple(self._known.experience)).models
        return int(np.argmax(mean_task_prediction(models)([space.settings(one, length) for one in candidates])))


@lru_cache(maxsize=8)
def _transferred_priors(tables: tuple[RecordedTable, ...]) -> TransferredPriors:
    return TransferredPriors(tables)


def _tpe_with_fit_pruner(known: SearchContext) -> SearchComponents:
    learned = _transferred_priors(tuple(known.experience))
    return SearchComponents(
        sampler=tpe, pruner=learned.pruner(known.target, length=known.header.epochs, seed=known.seed)
    )


register(
    SearchMethod(
        name="guided",
        description="The default: heuristics and recorded tasks guide the proposals, the fit pruner stops trials.",
        build=_bayesian(),
    )
)
for _name, _description, _build in (
    ("priors alone", "Guided proposals to full length.", _bayesian(pruner=False)),
    ("pruner alone", "TPE with the fit pruner.", _tpe_with_fit_pruner),
    ("learned alone", "Guided by recorded tasks without heuristics, with the fit pruner.", _bayesian(heuristics=False)),
    ("rules alone", "Guided by heuristics without recorded tasks, with the fit pruner.", _bayesian(tables=False)),
    (
        "wrong profile",
        "Guided, but told the facts and profile of the least similar task.",
        _bayesian(target=_least_similar_target),
    ),
    ("inverted", "Guided, but all that is expected beforehand is turned round.", _bayesian(prior_scale=-1.0)),
    (
        "portfolio",
        "The order of mean merit on recorded tasks, without profile or model of the task, to full length.",
        lambda known: SearchComponents(sampler=lambda seed: _PortfolioSampler(known, seed)),
    ),
):
    register(SearchMethod(name=_name, description=_description, build=_build, ablation=True))
