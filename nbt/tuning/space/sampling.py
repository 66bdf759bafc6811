"""Random sampling of settings from a search space, and mutations of settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.tuning.space.dimension import Dimension, ParamValue
from nbt.tuning.space.space import Space


def sample_params(space: Space, rng: np.random.Generator) -> dict[str, ParamValue]:
    """Returns random parameters of a space, each drawn independently from its whole range."""
    return {name: _sample_value(dimension, rng) for dimension in space.dimensions for name in dimension.parameters}


def sample_many_params(space: Space, rng: np.random.Generator, count: int) -> list[dict[str, ParamValue]]:
    """Returns `count` random sets of parameters, about ten times as fast as `count` calls of `sample_params`.

    The distribution is the same, but the values drawn from the same generator differ.
    """
    columns = {
        name: _sample_column(dimension, rng, count) for dimension in space.dimensions for name in dimension.parameters
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def neutral_params(dimensions: Iterable[Dimension]) -> dict[str, ParamValue]:
    """Returns the parameters of dimensions at their neutral values."""
    return {name: dimension.neutral for dimension in dimensions for name in dimension.parameters}


def mutate(
    space: Space, params: Mapping[str, ParamValue], fresh: Mapping[str, ParamValue], rng: np.random.Generator
) -> dict[str, ParamValue]:
    """Returns a mutation of `params`: one to four parameters are taken from `fresh` or moved towards it."""
    mutated: dict[str, ParamValue] = dict(params)
    count = 1 + int(rng.integers(4))
    total = len(space.parameters)
    names = {space.parameters[i] for i in rng.choice(total, size=min(count, total), replace=False)}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            if name in names:
                moves = dimension.kind == "float" and rng.random() < 0.7
                mutated[name] = dimension.interpolate(params[name], fresh[name], 0.25) if moves else fresh[name]
    return mutated


def _sample_column(dimension: Dimension, rng: np.random.Generator, count: int) -> list[Any]:
    """Returns `count` values of one parameter."""
    if dimension.kind == "categorical":
        return [dimension.choices[i] for i in rng.integers(len(dimension.choices), size=count)]
    low, high = dimension.bounds()
    if dimension.kind == "int":
        if dimension.log:
            return _rounded(np.exp(rng.uniform(*_int_log_bounds(dimension), size=count)), dimension)
        return list(rng.integers(int(low), int(high) + 1, size=count).tolist())
    if dimension.log:
        return list(np.clip(np.exp(rng.uniform(*dimension.log_bounds, size=count)), low, high).tolist())
    return list(rng.uniform(low, high, size=count).tolist())


def _int_log_bounds(dimension: Dimension) -> tuple[float, float]:
    """Returns the range of the logarithm that is rounded, in which both ends of the range are whole intervals."""
    low, high = dimension.bounds()
    return math.log(low - 0.5), math.log(high + 0.5)


def _rounded(values: NDArray[np.float64], dimension: Dimension) -> list[int]:
    return [int(value) for value in np.clip(np.rint(values), *dimension.bounds())]


def _sample_value(dimension: Dimension, rng: np.random.Generator) -> ParamValue:
    """Returns a value of one parameter."""
    if dimension.kind == "categorical":
        return dimension.choices[int(rng.integers(len(dimension.choices)))]
    low, high = dimension.bounds()
    if dimension.kind == "int":
        if dimension.log:
            return _rounded(np.exp(rng.uniform(*_int_log_bounds(dimension), size=1)), dimension)[0]
        return int(rng.integers(int(low), int(high) + 1))
    # Equal to `rng.uniform`, which takes several times as long for a single number.
    start, end = dimension.log_bounds if dimension.log else (low, high)
    value = start + (end - start) * rng.random()
    return min(max(float(np.exp(value)), low), high) if dimension.log else value
