"""Regrets of search methods by full runs: means over seeds, paired differences, and their figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.tuning.intervals import t_interval

Row = dict[str, Any]
Regrets = dict[str, NDArray[np.float64]]  # mean over seeds, (tasks, full runs)


def mean_regrets(rows: Sequence[Row], methods: Collection[str]) -> tuple[Regrets, int]:
    """Returns the mean regret of every method that has all tasks, and the number of seeds that all of these have.

    Without a common seed, there is none.

    Args:
        rows: Rows of searches, with `arm`, `dataset`, `seed`, and `regret` after 1, 2, ... full runs.
        methods: Names of the methods, in their order.
    """
    tasks = tasks_of(rows)
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["dataset"]), {})[row["seed"]] = row["regret"]
    names = [name for name in methods if tasks and all((name, task) in found for task in tasks)]
    if not names:
        return {}, 0
    common = set.intersection(*(set(found[name, task]) for name in names for task in tasks))
    if not common:
        return {}, 0
    return {
        name: np.array([np.mean([found[name, task][seed] for seed in sorted(common)], axis=0) for task in tasks])
        for name in names
    }, len(common)


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """Returns the names of the tasks, in the order of the first axis of `mean_regrets`."""
    return sorted({row["dataset"] for row in rows})


def difference(regrets: Regrets, name: str, other: str, amount: int) -> tuple[float, float, float]:
    """Returns the difference of two methods after some full runs, and the bounds of its interval over the tasks."""
    found = t_interval((regrets[name] - regrets[other])[:, amount - 1].tolist())
    low, high = (-math.inf, math.inf) if found.low is None or found.high is None else (found.low, found.high)
    return found.mean, low, high


def draw_regrets(regrets: Regrets, ours: Collection[str], unit: str, path: Path) -> None:
    """Draws the mean regret of every method by the number of full runs.

    Args:
        regrets: The regrets of `mean_regrets`.
        ours: Methods whose line is thick.
        unit: Label of the regret.
        path: File of the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in regrets.items():
        amounts = range(1, values.shape[1] + 1)
        axes.plot(amounts, values.mean(axis=0), label=name, linewidth=2.5 if name in ours else 1.0)
    axes.set(xlabel="epochs, in full runs", ylabel=unit, xlim=(1, None), ylim=(0, None))
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path)
    plt.close(figure)
