"""Comparison of search methods on generic tables of learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from nbt.errors import UsageError, require_positive
from nbt.tuning.benchmark.curves.methods import CurveMethod, curve_methods
from nbt.tuning.benchmark.curves.search import BudgetSpentError, CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask, FloatArray
from nbt.tuning.benchmark.metrics import bootstrap_mean_estimate, paired_test, ranks
from nbt.tuning.benchmark.processes import run_searches

AMOUNTS = (5, 10, 20)
REFERENCE = "tpe+asha"


@dataclass(frozen=True, eq=False)
class CurveReplayResult:
    """Regret of every method on every task.

    Attributes:
        tasks: The tasks.
        methods: Description of each method, by name.
        seeds: Number of searches of each method on each task.
        amounts: Budgets in full runs after which regret is measured.
        by_epochs: Normalised regret after `amounts` in epochs, by method, (tasks, seeds, amounts).
        by_cost: The same after `amounts` in cost, which differs only if the tables have a curve of seconds.
    """

    tasks: Sequence[CurveTask]
    methods: Mapping[str, str]
    seeds: int
    amounts: tuple[int, ...]
    by_epochs: Mapping[str, FloatArray]
    by_cost: Mapping[str, FloatArray]

    @property
    def reference(self) -> str:
        """Method that the differences are taken to: TPE with successive halving, or the first one without it."""
        return REFERENCE if REFERENCE in self.methods else next(iter(self.methods))

    def summary_rows(self) -> list[dict[str, Any]]:
        """Returns one row per task and method: mean normalised regret with its interval after each amount."""
        return [
            {"task": task.name, "method": name, **self._columns(self.by_epochs[name][index : index + 1])}
            for index, task in enumerate(self.tasks)
            for name in self.methods
        ]

    def overall_rows(self) -> list[dict[str, Any]]:
        """Returns one row per method over all tasks.

        Columns: after each amount, the mean normalised regret over tasks and seeds with its bootstrap interval by
        epochs (`regret_5`, `regret_5_low`, `regret_5_high`) and by cost (`cost_regret_5`); the mean rank (`rank_5`);
        the difference to the reference, paired by task and seed, with its interval (`difference_5`), and the p-value of
        Wilcoxon's signed-rank test (`p_5`). Intervals account for the seeds, not for the choice of tasks.
        """
        all_ranks = ranks(np.stack([self.by_epochs[name].reshape(-1) for name in self.methods]))
        rows = []
        for name, method_ranks in zip(self.methods, all_ranks, strict=True):
            row: dict[str, Any] = {"method": name, **self._columns(self.by_epochs[name])}
            shaped = method_ranks.reshape(self.by_epochs[name].shape)
            for i, amount in enumerate(self.amounts):
                regret, reference = (self.by_epochs[each][:, :, i].reshape(-1) for each in (name, self.reference))
                row[f"cost_regret_{amount}"] = float(self.by_cost[name][:, :, i].mean())
                row[f"rank_{amount}"] = float(shaped[:, :, i].mean())
                row |= bootstrap_mean_estimate((regret - reference).tolist()).columns(f"difference_{amount}")
                row[f"p_{amount}"] = paired_test(regret.tolist(), reference.tolist())
            rows.append(row)
        return rows

    def to_json(self) -> dict[str, Any]:
        """Returns the methods, the tasks and the tables of results in JSON types."""
        tasks = [{"task": task.name, "settings": len(task), "epochs_of_trial": task.length} for task in self.tasks]
        return {
            "methods": dict(self.methods),
            "reference": self.reference,
            "seeds": self.seeds,
            "tasks": tasks,
            "summary": self.summary_rows(),
            "overall": self.overall_rows(),
        }

    def _columns(self, regret: FloatArray) -> dict[str, float]:
        columns: dict[str, float] = {}
        for i, amount in enumerate(self.amounts):
            columns |= bootstrap_mean_estimate(regret[:, :, i].reshape(-1).tolist()).columns(f"regret_{amount}")
        return columns


def replay_curves(
    tasks: Sequence[CurveTask],
    *,
    methods: Sequence[str] = (),
    seeds: int,
    budget: int,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> CurveReplayResult:
    """Runs every method with every seed on every task; a method sees the other tasks completely.

    Args:
        tasks: The tasks.
        methods: Names of the methods; all if empty.
        seeds: Number of searches of each method on each task.
        budget: Epochs of a search in full runs.
        workers: Number of processes.
        on_progress: Called with the number of finished searches and the number of all searches.

    Raises:
        UsageError: A method is unknown, a number is not positive, or two tables have the same name.
    """
    chosen = curve_methods(methods)
    require_positive(seeds=seeds, budget=budget, workers=workers)
    if len({task.name for task in tasks}) < len(tasks):
        raise UsageError("two tables have the same name: rename one of the files")
    amounts = (*(amount for amount in AMOUNTS if amount < budget), budget)
    keys = list(product(range(len(tasks)), chosen, range(seeds)))
    shape = (len(tasks), seeds, len(amounts))
    by_epochs, by_cost = ({name: np.zeros(shape) for name in chosen} for _ in range(2))
    searches = run_searches(partial(_run_search, tuple(tasks), budget, amounts), keys, min(workers, len(keys)))
    for done, ((index, name, seed), regrets) in enumerate(searches, 1):
        by_epochs[name][index, seed], by_cost[name][index, seed] = regrets
        if on_progress is not None:
            on_progress(done, len(keys))
    descriptions = {name: description for name, (description, _) in chosen.items()}
    return CurveReplayResult(tasks, descriptions, seeds, amounts, by_epochs, by_cost)


_SearchKey = tuple[int, str, int]  # index of the task, name of the method, seed
_Regrets = tuple[FloatArray, FloatArray]


def _run_search(tasks: tuple[CurveTask, ...], budget: int, amounts: tuple[int, ...], key: _SearchKey) -> _Regrets:
    index, name, seed = key
    others = [other for other in tasks if other is not tasks[index]]
    return search_regret(
        curve_methods([name])[name][1], tasks[index], others, seed=seed, budget=budget, amounts=amounts
    )


def search_regret(
    method: CurveMethod,
    task: CurveTask,
    others: Sequence[CurveTask],
    *,
    seed: int,
    budget: int,
    amounts: Sequence[int],
) -> tuple[FloatArray, FloatArray]:
    """Runs one search and returns its normalised regret, see `CurveSearch.regret`, by epochs and by cost.

    Args:
        method: Search method.
        task: The task.
        others: Tables that the method may use.
        seed: Seed of the search.
        budget: Epochs of the search in full runs.
        amounts: Numbers of full runs in epochs, and in cost, after which the regret counts; at most `budget`.

    Returns:
        Regret after each amount in epochs, and after each in cost, (amounts,) each.
    """
    search = CurveSearch(task, budget * task.length)
    with suppress(BudgetSpentError):
        method(search, others, seed)
    regret, costs = search.regret(), np.cumsum(search.costs)
    by_epochs = regret[[amount * task.length - 1 for amount in amounts]]
    # At least one epoch counts; rounding errors of the sums must not leave one out.
    ends = np.maximum(np.searchsorted(costs, np.array(amounts) + 1e-9, side="right"), 1)
    return by_epochs, regret[ends - 1]
