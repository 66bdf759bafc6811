"""Methods: the ways to search that a replay compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna

from nbt.errors import UsageError, nearest
from nbt.search.brain import SamplerFactory, tpe
from nbt.search.optuna_pruners import hyperband_pruner, median_pruner
from nbt.search.pruner import Asha, NoPruner, Pruner
from nbt.search.recorded import RecordedTable, TableHeader
from nbt.search.space import Space


@dataclass(frozen=True, kw_only=True, eq=False)
class Searcher:
    """What a method puts into the brain for one search.

    Attributes:
        sampler: Seed -> who proposes settings.
        pruner: Who stops trials early.
    """

    sampler: SamplerFactory
    pruner: Pruner = field(default_factory=NoPruner)


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What a method may know before a search begins; nothing that was measured by training on the task.

    Attributes:
        header: Of the task: facts of the dataset, backbone, fit profile, length of a trial.
        space: What is searched.
        experience: Recorded tables of other tasks, whole.
        seed: Of the search.
    """

    header: TableHeader
    space: Space
    experience: Sequence[RecordedTable]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to search.

    Attributes:
        name: What users call it.
        description: One sentence.
        build: Makes it for one search.
        anchors: Whether it starts with the anchors, as every live search does. Plain random search does not: it is
            the yardstick that needs no knowledge at all. The others start alike, so that they differ in what they
            are named after.
    """

    name: str
    description: str
    build: Callable[[Knowledge], Searcher]
    anchors: bool = True


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Adds a method, and returns it; a second one of the same name takes its place."""
    _METHODS[method.name] = method
    return method


def method_names() -> tuple[str, ...]:
    """Returns the names of all methods, in the order of their registration."""
    return tuple(_METHODS)


def get_method(name: str) -> Method:
    """Returns a method by its name.

    Raises:
        UsageError: There is none; the nearest are given.
    """
    if name not in _METHODS:
        raise UsageError(f"unknown method {name!r}; {nearest(name, method_names())}")
    return _METHODS[name]


def leave_out(tables: Sequence[RecordedTable], evaluated: RecordedTable) -> list[RecordedTable]:
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


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


register(
    Method(
        name="random",
        description="Random settings to full length, without anchors.",
        build=lambda known: Searcher(sampler=_random),
        anchors=False,
    )
)
register(
    Method(
        name="asha",
        description="Random settings; the lower half is stopped at a third and at two thirds.",
        build=lambda known: Searcher(sampler=_random, pruner=Asha(known.header.epochs)),
    )
)
register(Method(name="tpe", description="TPE to full length.", build=lambda known: Searcher(sampler=tpe)))
register(
    Method(
        name="tpe+median",
        description="TPE; stopped under the median of earlier trials.",
        build=lambda known: Searcher(sampler=tpe, pruner=median_pruner(known.header.epochs)),
    )
)
register(
    Method(
        name="tpe+hyperband",
        description="TPE; Hyperband's brackets from one epoch on.",
        build=lambda known: Searcher(sampler=tpe, pruner=hyperband_pruner(known.header.epochs)),
    )
)
register(
    Method(
        name="tpe+asha",
        description="TPE; the lower half is stopped at a third and at two thirds.",
        build=lambda known: Searcher(sampler=tpe, pruner=Asha(known.header.epochs)),
    )
)
