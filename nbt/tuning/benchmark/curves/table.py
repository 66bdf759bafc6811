"""Generic tables of learning curves: one row per setting, hyperparameters as scalars and curves as lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nbt.errors import UsageError, nearest
from nbt.tuning.experience.recorded_table import reading_error

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FloatArray = NDArray[np.float64]

SECONDS = "seconds"
# A positive hyperparameter whose values differ by more than this factor is modelled on the logarithmic scale.
_LOG_RATIO = 50.0
_MIN_SETTINGS = 10


@dataclass(frozen=True, eq=False)
class CurveTask:
    """A table of learning curves and the curves that a search sees and is judged by.

    Attributes:
        name: Name of the file without its ending.
        columns: Values of each hyperparameter, (settings,) each.
        scores: What a search sees after each epoch, greater is better and -inf is diverged, (settings, epochs).
        judged: What it is judged by, (settings, epochs) like `scores`.
        costs: Cost of each epoch in full runs, (settings, epochs).
        log_scores: Whether models see the logarithm of a positive loss.
    """

    name: str
    columns: dict[str, NDArray[Any]]
    scores: FloatArray
    judged: FloatArray
    costs: FloatArray
    log_scores: bool

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def length(self) -> int:
        """Epochs of a full run."""
        return int(self.scores.shape[1])

    def params(self, setting: int) -> dict[str, Any]:
        """Returns the hyperparameters of a setting."""
        return {name: values[setting : setting + 1].tolist()[0] for name, values in self.columns.items()}

    def kinds(self) -> dict[str, str]:
        """Returns the kind of every hyperparameter: "number", "str" or "bool"."""
        return {
            name: "number" if _is_number(values) else type(values.tolist()[0]).__name__
            for name, values in self.columns.items()
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the Optuna distribution of every hyperparameter: the range or the values that the table has."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        return {
            name: FloatDistribution(float(values.min()), float(values.max()), log=_is_log(values))
            if _is_number(values)
            else CategoricalDistribution(sorted(set(values.tolist())))
            for name, values in self.columns.items()
        }

    def points(self) -> FloatArray:
        """Returns the settings as points, (settings, coordinates): numbers scaled to 0 ... 1, choices one-hot."""
        parts = []
        for values in self.columns.values():
            if _is_number(values):
                scaled = np.log(values.astype(float)) if _is_log(values) else values.astype(float)
                parts.append(((scaled - scaled.min()) / max(float(np.ptp(scaled)), 1e-12))[:, None])
            else:
                choices = np.array(sorted(set(values.tolist())))
                parts.append(math.sqrt(0.5) * (values[:, None] == choices[None]))
        return np.concatenate(parts, axis=1).astype(float)

    def point_of(self, params: dict[str, Any]) -> FloatArray:
        """Returns other values of the hyperparameters as a point of the same coordinates, (coordinates,).

        Numbers outside the range of the table count as its nearest end, so that 0 has a place on a logarithmic scale.
        """
        parts: list[float] = []
        for name, values in self.columns.items():
            if _is_number(values):
                low, high = float(values.min()), float(values.max())
                value = min(max(float(params[name]), low), high)
                if _is_log(values):
                    low, high, value = math.log(low), math.log(high), math.log(value)
                parts.append((value - low) / max(high - low, 1e-12))
            else:
                parts.extend(math.sqrt(0.5) * (params[name] == choice) for choice in sorted(set(values.tolist())))
        return np.array(parts)

    def model_scores(self) -> FloatArray:
        """Returns `scores` as the models see them: the negative logarithm of a positive loss, otherwise unchanged."""
        if not self.log_scores:
            return self.scores
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(self.scores), -np.log(np.maximum(-self.scores, 1e-12)), -np.inf)


def load_curve_task(path: str | Path, *, metric: str, judge: str, minimize: bool, initial: bool = False) -> CurveTask:
    """Reads a generic table of learning curves.

    Args:
        path: Parquet file. Columns of numbers, texts or flags are hyperparameters; columns of lists of numbers are
            curves with one value per epoch, all of one length. A value that is not finite means that the run diverged.
            A curve `seconds` is the cost of each epoch; without it every epoch costs the same. Where a run has
            diverged, seconds that are not finite count 0.
        metric: Name of the curve that a search sees.
        judge: Name of the curve whose last value judges a search.
        minimize: Whether smaller values of both curves are better.
        initial: Whether the first value of each curve was measured before training; it is then left out.

    Raises:
        UsageError: The file cannot be read or is of another kind, it has no such curve, every run diverges, or seconds
            are not finite or negative; the message names the file.
    """
    try:
        if Path(path).is_dir():  # pandas would read its files as one table
            raise IsADirectoryError
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {reading_error(path, error)}; expected a table of learning curves") from error
    curves = {name: values for name in frame if (values := _curve(frame[name])) is not None}
    scalars = {str(name): frame[name].to_numpy() for name in frame if name not in curves}
    for option, name in (("--metric", metric), ("--judge", judge)):
        if name not in curves:
            found = ", ".join(curves) or "none"
            raise UsageError(
                f"{path}: {option} {name!r} is not a column of curves (lists of numbers; found: {found}); "
                f"{nearest(name, list(curves))}"
            )
    _check(path, scalars, curves, initial)
    sign, start = (-1.0 if minimize else 1.0), int(initial)
    seen, judged = (_scores(sign * curves[name][:, start:]) for name in (metric, judge))
    for option, name, scores in (("--metric", metric, seen), ("--judge", judge, judged)):
        if not np.isfinite(scores[:, -1]).any():
            raise UsageError(f"{path}: every run diverges in {option} {name!r}; choose another curve")
    return CurveTask(
        name=Path(path).stem,
        columns=scalars,
        scores=seen,
        judged=judged,
        costs=_costs(path, curves.get(SECONDS), seen, start),
        log_scores=minimize and bool((seen[np.isfinite(seen)] < 0).all()),
    )


def _check(path: str | Path, scalars: dict[str, NDArray[Any]], curves: dict[str, FloatArray], initial: bool) -> None:
    """Raises UsageError if a table has no hyperparameters, unusable columns, too few rows or curves of one epoch."""
    for name, values in scalars.items():
        kinds = {type(value) for value in values.tolist()}
        if not (kinds <= {int, float} or kinds in ({str}, {bool})):
            raise UsageError(
                f"{path}: column {name!r} is neither a hyperparameter (a number, text or flag in every row) nor a "
                "curve (a list of numbers of one length in every row); remove it"
            )
        if _is_number(values) and not np.isfinite(values.astype(float)).all():
            raise UsageError(f"{path}: hyperparameter {name!r} is not finite in every row; remove these rows")
    if not scalars:
        raise UsageError(f"{path}: no columns of hyperparameters beside the curves")
    lengths = {values.shape[1] for values in curves.values()}
    if len(lengths) > 1:
        raise UsageError(f"{path}: the curves have different lengths: {', '.join(map(str, sorted(lengths)))}")
    if min(lengths) < 2 + initial:
        raise UsageError(f"{path}: the curves have fewer than two epochs")
    rows = len(next(iter(scalars.values())))
    if rows < _MIN_SETTINGS:
        raise UsageError(f"{path}: {rows} settings, but a replay needs {_MIN_SETTINGS} or more")


def _curve(column: pd.Series) -> FloatArray | None:
    """Returns a column of lists of numbers of one length as an array, (settings, epochs); None for other columns."""
    values: Sequence[Any] = column.tolist()
    if not values or not all(isinstance(value, list | np.ndarray) and len(value) == len(values[0]) for value in values):
        return None
    try:
        return np.asarray([np.asarray(value, dtype=float) for value in values])
    except (TypeError, ValueError):
        return None


def _scores(values: FloatArray) -> FloatArray:
    """Returns scores with -inf from the first value of a run that is not finite."""
    diverged = np.logical_or.accumulate(~np.isfinite(values), axis=1)
    return np.where(diverged, -np.inf, values)


def _costs(path: str | Path, seconds: FloatArray | None, scores: FloatArray, start: int) -> FloatArray:
    """Returns the cost of each epoch in units of the median run that does not diverge.

    Raises:
        UsageError: Seconds of an epoch with a finite score are not finite or negative, or the median run takes none.
    """
    costs = np.ones_like(scores) if seconds is None else seconds[:, start:]
    valid = np.isfinite(costs) & (costs >= 0)
    if (wrong := np.isfinite(scores) & ~valid).any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise UsageError(
            f"{path}: row {row}, counted from 0: the curve {SECONDS!r} has a value that is not finite or negative "
            "before the run diverges; correct or remove the row"
        )
    costs = np.where(valid, costs, 0.0)
    unit = float(np.median(costs[np.isfinite(scores[:, -1])].sum(axis=1)))
    if unit == 0:
        raise UsageError(f"{path}: the curve {SECONDS!r} is 0 in the median run; correct or remove the column")
    return np.asarray(costs / unit)


def _is_number(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iuf"


def _is_log(values: NDArray[Any]) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() > _LOG_RATIO)
