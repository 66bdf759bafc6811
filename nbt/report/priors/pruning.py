"""Pruning of a study: forecasts of trials, stopped trials, epochs saved, and the false-stop rate.

The false-stop rate is estimated from controls: unpromising trials that were drawn at random to continue. The baseline
recipes at the start of a search are never stopped either; they are not a random sample and are counted separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nbt.metrics import DEFAULT_METRIC
from nbt.report.stored_values import finite, list_at, number_at
from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME
from nbt.tuning.intervals import Interval, wilson_interval
from nbt.tuning.storage.records import StudyRecord, TrialRecord

STOPPED, CONTROL, EXEMPT = "stopped", "control", "never stopped"
"""Fate of an unpromising trial: stopped, continued as a random control, or exempt as a baseline recipe."""

# Number of decimals with which forecasts are stored.
_DECIMALS = 4
# Larger stored values are not valid epochs.
_MAX_EPOCH = 1_000_000


class ForecastRow(NamedTuple):
    """A forecast of a trial's final score after an epoch; scores and chance are 0 ... 1.

    Attributes:
        epoch: Epoch after which the forecast was made, from 1.
        mean: Expected score.
        low: Lower bound of the 80 % interval.
        high: Upper bound of the 80 % interval.
        chance: Probability of beating the best trial at that time.
    """

    epoch: int
    mean: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """All forecasts of a trial.

    Attributes:
        rows: The forecasts by epoch, at least one.
        incumbent: Score to beat when the trial was judged unpromising, else at the last forecast; None if unknown.
        would_stop: Epoch at which the trial was judged unpromising, or None.
        control: Whether the trial was judged unpromising and continued as a random control.
    """

    rows: tuple[ForecastRow, ...]
    incumbent: float | None
    would_stop: int | None
    control: bool

    @property
    def last(self) -> ForecastRow:
        """The last forecast."""
        return self.rows[-1]

    @property
    def deciding(self) -> ForecastRow:
        """The forecast by which the trial was judged unpromising, else the last one."""
        return next((row for row in self.rows if row.epoch == self.would_stop), self.last)

    def latest_at(self, epoch: float) -> ForecastRow | None:
        """Returns the last forecast at or before an epoch, or None."""
        return next((row for row in reversed(self.rows) if row.epoch <= epoch), None)


@dataclass(frozen=True, kw_only=True)
class PruningDecision:
    """An unpromising trial and its fate.

    Attributes:
        number: Number of the trial.
        decision: `STOPPED`, `CONTROL` or `EXEMPT`.
        epochs: Number of trained epochs.
        epochs_saved: Epochs of a full-length trial that were not trained because the trial was stopped.
        forecast: Forecasts of the trial; None for trials of other pruners.
        outcome: Score at full length; None for trials that did not reach it.
        beat_incumbent: Whether the outcome exceeds the accuracy to beat; None if one of them is unknown.
        reason: Why the trial was stopped, else "".
    """

    number: int
    decision: str
    epochs: int
    epochs_saved: int
    forecast: Forecast | None
    outcome: float | None
    beat_incumbent: bool | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class PruningResults:
    """Results of pruning in a study.

    Attributes:
        decisions: The unpromising trials, by number.
        forecasts: Whether any trial has a forecast.
        stopped_by_budget: Number of trials that the end of the budget stopped, which does not count as pruning.
        false_stop_rate: See `false_stop_rate`.
        coverage: See `coverage`.
    """

    decisions: tuple[PruningDecision, ...]
    forecasts: bool
    stopped_by_budget: int
    false_stop_rate: Interval | None
    coverage: Interval | None

    def with_decision(self, decision: str) -> list[PruningDecision]:
        """Returns the trials with a decision, one of `STOPPED`, `CONTROL` and `EXEMPT`."""
        return [trial for trial in self.decisions if trial.decision == decision]

    @property
    def epochs_saved(self) -> int:
        """Epochs of full-length trials that were not trained."""
        return sum(trial.epochs_saved for trial in self.decisions)


def pruning_results(record: StudyRecord) -> PruningResults:
    """Returns the results of pruning in a study."""
    candidates = [pruning_decision(trial, trial.settings.epochs, record.config.metric) for trial in record.trials]
    decisions = tuple(decision for decision in candidates if decision is not None)
    return PruningResults(
        decisions=decisions,
        forecasts=any(forecast_of(trial) is not None for trial in record.trials),
        stopped_by_budget=sum(trial.state == "pruned" and _stopped_by_budget(trial) for trial in record.trials),
        false_stop_rate=false_stop_rate(decisions),
        coverage=coverage(record.trials, record.config.metric),
    )


def pruning_decision(trial: TrialRecord, length: int, metric: str = DEFAULT_METRIC) -> PruningDecision | None:
    """Returns the fate of an unpromising trial; None for other trials.

    Args:
        trial: A trial of a study.
        length: Number of epochs of a full-length trial.
        metric: Name of the metric of the study.
    """
    forecast = forecast_of(trial)
    decision = _decision(trial, forecast)
    if decision is None:
        return None
    outcome = trial.score(metric)
    incumbent = None if forecast is None else forecast.incumbent
    return PruningDecision(
        number=trial.number,
        decision=decision,
        epochs=len(trial.curve),
        epochs_saved=max(length - len(trial.curve), 0) if decision == STOPPED else 0,
        forecast=forecast,
        outcome=outcome,
        beat_incumbent=None if outcome is None or incumbent is None else round(outcome, _DECIMALS) > incumbent,
        reason=trial.reason if decision == STOPPED else "",
    )


def false_stop_rate(decisions: Iterable[PruningDecision]) -> Interval | None:
    """Returns the share of controls that exceeded the accuracy to beat, with its 95 % Wilson interval.

    It estimates the share of stopped trials that would have done so. None without a control that reached full length.
    """
    controls = [trial for trial in decisions if trial.decision == CONTROL]
    outcomes = [trial.beat_incumbent for trial in controls if trial.beat_incumbent is not None]
    return _wilson_share(outcomes)


def coverage(trials: Sequence[TrialRecord], metric: str = DEFAULT_METRIC) -> Interval | None:
    """Returns the share of full-length trials that ended inside their forecast's 80 % interval.

    The last forecast at or before half of a trial's epochs counts; a diverged trial ended at 0. Stopped trials have no
    outcome and are left out. The share has a 95 % Wilson interval; None without such trials.
    """
    inside = []
    for trial in trials:
        forecast = forecast_of(trial)
        row = None if forecast is None else forecast.latest_at(trial.settings.epochs / 2)
        score = trial.score(metric)
        if score is not None and row is not None:
            inside.append(row.low <= round(score, _DECIMALS) <= row.high)
    return _wilson_share(inside)


def forecast_of(trial: TrialRecord) -> Forecast | None:
    """Returns the stored forecasts of a trial; None if there are none or they are damaged."""
    stored = trial.forecast
    if stored is None:
        return None
    # Without a list of rows, the last forecast is stored field by field.
    last = [stored.get(key) for key in ForecastRow._fields]
    rows = {row.epoch: row for item in list_at(stored, "rows") or [last] if (row := _read_row(item)) is not None}
    if not rows:
        return None
    would_stop = number_at(stored, "would_stop")
    return Forecast(
        rows=tuple(rows[epoch] for epoch in sorted(rows)),
        incumbent=number_at(stored, "incumbent"),
        would_stop=None if would_stop is None else int(would_stop),
        control=stored.get("control") is True and would_stop is not None,
    )


def _read_row(stored: Any) -> ForecastRow | None:
    if not isinstance(stored, list | tuple) or len(stored) != len(ForecastRow._fields):
        return None
    values = [value for value in map(finite, stored) if value is not None]
    if len(values) < len(stored) or not 1 <= values[0] <= _MAX_EPOCH:
        return None
    return ForecastRow(int(values[0]), *values[1:])


def _decision(trial: TrialRecord, forecast: Forecast | None) -> str | None:
    if forecast is not None and forecast.control:
        return CONTROL
    if trial.state == "pruned":
        return None if _stopped_by_budget(trial) else STOPPED
    return EXEMPT if trial.state == "complete" and forecast is not None and forecast.would_stop is not None else None


def _stopped_by_budget(trial: TrialRecord) -> bool:
    return trial.reason in (OUT_OF_EPOCHS, OUT_OF_TIME)


def _wilson_share(hits: Sequence[bool]) -> Interval | None:
    return wilson_interval(sum(hits) / len(hits), len(hits)) if hits else None
