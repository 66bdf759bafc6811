"""PruningResults: what was forecast of trials, which were stopped, what that saved, and how often it was wrong.

How often is known from controls: trials that were found hopeless like the stopped ones, but were drawn at random to run
on. The first recipes of a search are never stopped either; they are no random sample and are counted on their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nbt.report.stored_values import finite, list_at, number_at
from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME
from nbt.tuning.intervals import Interval, wilson_interval
from nbt.tuning.storage.records import StudyRecord, TrialRecord

STOPPED, CONTROL, EXEMPT = "stopped", "control", "never stopped"
"""What became of a trial that was found hopeless: it was stopped, it ran on as a control, or as a first recipe."""

# Forecasts are stored with so many decimals.
_DECIMALS = 4
# Of a trial that can be: what is beyond is no epoch.
_MAX_EPOCH = 1_000_000


class ForecastRow(NamedTuple):
    """The forecast of a trial's final accuracy after an epoch; accuracies and chance 0 ... 1.

    Attributes:
        epoch: After which it was made, from 1.
        mean: Expected accuracy.
        low: Lower bound of the 80 % interval.
        high: Upper bound.
        chance: Of beating the best trial at that time.
    """

    epoch: int
    mean: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """All that was forecast of a trial.

    Attributes:
        rows: By epoch, at least one.
        incumbent: Accuracy to beat when the trial was found hopeless, or at the last forecast; None where it is not
            known.
        would_stop: Epoch at which it was found hopeless, None where it was not.
        control: It was found hopeless and ran on as a random control.
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
        """The forecast by which the trial was found hopeless; the last one where it was not."""
        return next((row for row in self.rows if row.epoch == self.would_stop), self.last)

    def until(self, epoch: float) -> ForecastRow | None:
        """Returns the last forecast at or before an epoch, None where there was none by then."""
        return next((row for row in reversed(self.rows) if row.epoch <= epoch), None)


@dataclass(frozen=True, kw_only=True)
class PruningDecision:
    """A trial that was stopped, or would have been.

    Attributes:
        number: Of the trial.
        decision: `STOPPED`, `CONTROL` or `EXEMPT`.
        epochs: How many were trained.
        saved: Epochs of a full trial that were not trained because it was stopped.
        forecast: What was forecast of it; None of another pruner's trials.
        outcome: Its accuracy at full length, None where it did not get there.
        beat: Whether that beat the accuracy to beat; None where one of them is not known.
        reason: Why it was stopped, else "".
    """

    number: int
    decision: str
    epochs: int
    saved: int
    forecast: Forecast | None
    outcome: float | None
    beat: bool | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class PruningResults:
    """What pruning did in a study.

    Attributes:
        decisions: By number.
        forecasts: Whether any trial has a forecast.
        stopped_by_budget: Trials that the end of the budget stopped, which is not pruning.
        false_stop_rate: See `false_stop_rate`.
        coverage: Share of the full-length trials that ended inside an 80 % interval, see `coverage`.
    """

    decisions: tuple[PruningDecision, ...]
    forecasts: bool
    stopped_by_budget: int
    false_stop_rate: Interval | None
    coverage: Interval | None

    def of(self, decision: str) -> list[PruningDecision]:
        """Returns the trials of one decision."""
        return [one for one in self.decisions if one.decision == decision]

    @property
    def saved(self) -> int:
        """Epochs of full trials that were not trained."""
        return sum(one.saved for one in self.decisions)


def pruning(record: StudyRecord) -> PruningResults:
    """Returns what pruning did in a study."""
    found = [judge(trial, record.config.epochs) for trial in record.trials]
    decisions = tuple(one for one in found if one is not None)
    return PruningResults(
        decisions=decisions,
        forecasts=any(forecast_of(trial) is not None for trial in record.trials),
        stopped_by_budget=sum(trial.state == "pruned" and _stopped_by_budget(trial) for trial in record.trials),
        false_stop_rate=false_stop_rate(decisions),
        coverage=coverage(record.trials),
    )


def judge(trial: TrialRecord, length: int) -> PruningDecision | None:
    """Returns what became of a trial that was found hopeless; None of any other.

    Args:
        trial: Of a study.
        length: Epochs of a full trial.
    """
    forecast = forecast_of(trial)
    decision = _decision(trial, forecast)
    if decision is None:
        return None
    outcome = trial.val_accuracy if trial.state == "complete" else None
    incumbent = None if forecast is None else forecast.incumbent
    return PruningDecision(
        number=trial.number,
        decision=decision,
        epochs=len(trial.curve),
        saved=max(length - len(trial.curve), 0) if decision == STOPPED else 0,
        forecast=forecast,
        outcome=outcome,
        beat=None if outcome is None or incumbent is None else round(outcome, _DECIMALS) > incumbent,
        reason=trial.reason if decision == STOPPED else "",
    )


def false_stop_rate(decisions: Iterable[PruningDecision]) -> Interval | None:
    """Returns the share of controls that beat the accuracy to beat, with its 95 % Wilson interval.

    It estimates how many of the stopped trials would have. None without a control that ran to its end.
    """
    outcomes = [one.beat for one in decisions if one.decision == CONTROL and one.beat is not None]
    return _wilson_share(outcomes)


def coverage(trials: Sequence[TrialRecord]) -> Interval | None:
    """Returns the share of full-length trials that ended inside the 80 % interval forecast of them, with its own.

    What counts is each trial's last forecast at or before half of its epochs; a trial that diverged ended at 0. Trials
    that were stopped have no outcome, so it is the share of those that ran on. The interval is Wilson's, 95 %; None
    without such a trial.
    """
    inside = []
    for trial in trials:
        forecast = forecast_of(trial)
        row = None if forecast is None else forecast.until(trial.settings.epochs / 2)
        if trial.state == "complete" and trial.val_accuracy is not None and row is not None:
            inside.append(row.low <= round(trial.val_accuracy, _DECIMALS) <= row.high)
    return _wilson_share(inside)


def forecast_of(trial: TrialRecord) -> Forecast | None:
    """Returns what was forecast of a trial, None where nothing was or it is damaged."""
    stored = trial.forecast
    if stored is None:
        return None
    whole = [stored.get(key) for key in ForecastRow._fields]
    rows = {row.epoch: row for item in list_at(stored, "rows") or [whole] if (row := _read_row(item)) is not None}
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
