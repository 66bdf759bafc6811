"""Equal effort: every arm of a study chooses its settings by one search of the same size, and then runs on seeds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from study_rows import append_row, latest_rows

Row = dict[str, Any]
Values = tuple[float, ...]
Key = tuple[str, ...]  # what an arm is: data set, backbone and so on, and its name
SEARCH_SEED = 1000


@dataclass(frozen=True)
class Axis:
    """A setting of an arm, with the values that its search tries.

    Attributes:
        values: The values that are always tried, in rising order; the middle one is tried first, so that it is chosen
            where several are equally good, and it is used until the axis is searched.
        step: Factor between neighbours beyond them.
        n_beyond: Number of values that are tried beyond them, one at a time, while the best is the least or greatest.
        high: Greatest value that makes sense.
    """

    values: Values
    step: float
    n_beyond: int
    high: float = float("inf")

    @property
    def middle(self) -> float:
        """The value in the middle of the range."""
        return self.values[len(self.values) // 2]

    def next_value(self, tried: Mapping[float, float]) -> float | None:
        """Returns the value to try next, given the merits of those that were tried; None if there is none."""
        for value in (self.middle, *self.values):
            if value not in tried:
                return value
        if len(tried) >= len(self.values) + self.n_beyond:
            return None
        best = best_value(tried)
        # Four digits, so that a value that was written and read is the same one.
        beyond = {min(tried): best / self.step, max(tried): min(best * self.step, self.high)}.get(best, best)
        value = float(f"{beyond:.4g}")
        return None if value in tried else value


AxesOf = Callable[[Key], Sequence[Axis]]


class Search(NamedTuple):
    """State of the search of an arm.

    Attributes:
        values: The combination to try next, or the best one if the search is complete.
        is_complete: Whether nothing is left to try.
        edges: Axes of a complete search whose best value is the least or greatest that was tried, but not their limit.
    """

    values: Values
    is_complete: bool
    edges: tuple[int, ...] = ()


def best_value(tried: Mapping[float, float]) -> float:
    """Returns the value with the greatest merit; of several the one that was tried first."""
    return max(tried, key=lambda value: tried[value])


def search(axes: Sequence[Axis], merits: Mapping[Values, float]) -> Search:
    """Searches the axes one after another, each at the best values of those before it.

    Args:
        axes: The settings of an arm, the most important first.
        merits: Merit, the greater the better, of all combinations that were tried, in the order of the trials.
    """
    chosen, edges = [axis.middle for axis in axes], []
    for index, axis in enumerate(axes):
        line = _line(chosen, index, merits)
        value = axis.next_value(line)
        if value is not None:
            return Search((*chosen[:index], value, *chosen[index + 1 :]), False)
        chosen[index] = best_value(line)
        if chosen[index] in (min(line), max(line)) and chosen[index] != axis.high:
            edges.append(index)
    return Search(tuple(chosen), True, tuple(edges))


def _line(chosen: Sequence[float], index: int, merits: Mapping[Values, float]) -> dict[float, float]:
    """Returns value -> merit of the combinations that differ from the chosen one along an axis only."""
    others = [*chosen[:index], *chosen[index + 1 :]]
    return {
        values[index]: merit for values, merit in merits.items() if [*values[:index], *values[index + 1 :]] == others
    }


def train_arms(
    args: argparse.Namespace,
    keys: Sequence[Key],
    axes_of: AxesOf,
    seeds: Sequence[int],
    train: Callable[[Key, Values, int], Row],
) -> None:
    """Trains the missing runs of the arms of this process: all searches first, then seed by seed.

    Args:
        args: Arguments of `shards.study_parser`.
        keys: All arms.
        axes_of: Returns what an arm searches.
        seeds: Seeds of the runs with the best values.
        train: Trains an arm with values and a seed, and returns its results, of which "val" is the merit.
    """
    part, parts = map(int, args.shard.split("/"))
    deadline = time.monotonic() + 60 * args.minutes
    for seed in (SEARCH_SEED, *seeds):
        for key in keys[part::parts]:
            while (values := next_values(latest_rows(args.rows), key, axes_of(key), seed)) is not None:
                if time.monotonic() > deadline:
                    return
                row = {"arm": ", ".join(key), "seed": seed, "changes": values, **train(key, values, seed)}
                append_row(args.rows, row)
                print(f"{row['arm']}, {values}, seed {seed}: {100 * row['val']:.1f} %", flush=True)


def next_values(rows: Sequence[Row], key: Key, axes: Sequence[Axis], seed: int) -> Values | None:
    """Returns the values of the next run of an arm with a seed; None if it is complete."""
    found = searched(rows, key, axes)
    if seed == SEARCH_SEED:
        return None if found.is_complete else found.values
    return None if rows_of(rows, key, [seed]) else found.values


def searched(rows: Sequence[Row], key: Key, axes: Sequence[Axis]) -> Search:
    """Returns the search of an arm."""
    return search(axes, {tuple(row["changes"]): row["val"] for row in rows_of(rows, key, [SEARCH_SEED])})


def rows_of(rows: Sequence[Row], key: Key, seeds: Sequence[int]) -> list[Row]:
    """Returns the runs of an arm with some seeds, in the order of the rows."""
    return [row for row in rows if row["arm"] == ", ".join(key) and row["seed"] in seeds]


def edges_line(rows: Sequence[Row], keys: Sequence[Key], axes_of: AxesOf, names: Sequence[str]) -> str:
    """Returns a sentence on the arms whose best value of a setting is at the edge of its range."""
    edges = [f"{', '.join(key)} ({names[index]})" for key in keys for index in searched(rows, key, axes_of(key)).edges]
    return f"Best value at the edge of its range: {'; '.join(edges) or 'in no arm'}."
