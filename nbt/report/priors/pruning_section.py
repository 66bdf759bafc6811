"""Section of a report on pruning: sentences and table rows."""

from __future__ import annotations

from nbt.metrics import METRICS, Metric
from nbt.report.formatting import (
    DASH,
    TemplateData,
    format_interval,
    one_line,
    percent,
    pluralise,
    score_interval,
    score_text,
)
from nbt.report.priors.pruning import (
    CONTROL,
    EXEMPT,
    STOPPED,
    Forecast,
    ForecastRow,
    PruningDecision,
    PruningResults,
    pruning_results,
)
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import StudyRecord


def pruning_section(record: StudyRecord) -> TemplateData:
    """Returns the section on the pruning of a search.

    Its `sentences` give the number of stopped trials, the epochs saved, the false-stop rate and the coverage of the
    forecasts; its `rows` are the unpromising trials by number, none without forecasts.
    """
    results, metric = pruning_results(record), METRICS[record.config.metric]
    sentences = [_stopped_sentence(record, results)]
    if results.forecasts:
        sentences += [_control_sentence(results), _exempt_sentence(results), _coverage_sentence(results)]
    elif results.with_decision(STOPPED):
        sentences.append("This pruner has no control trials, so its false-stop rate is unknown.")
    return TemplateData(
        sentences=tuple(sentence for sentence in sentences if sentence),
        rows=tuple(_pruned_trial_row(trial, metric) for trial in results.decisions) if results.forecasts else (),
        forecasts=results.forecasts,
    )


def _stopped_sentence(record: StudyRecord, results: PruningResults) -> str:
    stopped = len(results.with_decision(STOPPED))
    name = one_line(record.pruner) or DASH
    budget = (
        f" The end of the budget stopped {pluralise(results.stopped_by_budget, 'trial')}."
        if results.stopped_by_budget
        else ""
    )
    if not stopped:
        return f"No trial was stopped early (pruner {name}).{budget}"
    were = "was" if stopped == 1 else "were"
    saved = f"which saved {pluralise(results.epochs_saved, 'epoch')} of full-length trials"
    return f"{pluralise(stopped, 'trial')} {were} stopped early (pruner {name}), {saved}.{budget}"


def _control_sentence(results: PruningResults) -> str:
    controls = results.with_decision(CONTROL)
    unfinished = sum(control.beat_incumbent is None for control in controls)
    unknown = f" The outcome of {pluralise(unfinished, 'more control')} is unknown." if unfinished else ""
    rate = results.false_stop_rate
    if rate is None:
        return (
            "A random sample of the unpromising trials continues as controls; none of them has reached full length, so "
            f"the false-stop rate of this study is unknown.{unknown}"
        )
    beat = sum(control.beat_incumbent is True for control in controls)
    return (
        f"Of {pluralise(rate.n, 'unpromising trial')} that continued as random controls, {beat or 'none'} exceeded the "
        f"accuracy to beat: a false-stop rate of {percent(rate.mean)} (95 % Wilson interval {format_interval(rate)})."
        f"{unknown}"
    )


def _exempt_sentence(results: PruningResults) -> str:
    exempt = [trial for trial in results.with_decision(EXEMPT) if trial.beat_incumbent is not None]
    if not exempt:
        return ""
    beat = sum(trial.beat_incumbent is True for trial in exempt)
    return (
        f"Of the baseline recipes, which are never stopped, {len(exempt)} {'was' if len(exempt) == 1 else 'were'} "
        f"unpromising; {beat or 'none'} of them exceeded the accuracy to beat. They are not a random sample and do not "
        "count towards the rate."
    )


def _coverage_sentence(results: PruningResults) -> str:
    coverage = results.coverage
    if coverage is None:
        return "No full-length trial has a forecast from its first half, so the forecasts cannot be checked."
    inside = round(coverage.mean * coverage.n)
    return (
        f"{inside} of {pluralise(coverage.n, 'full-length trial')} ({percent(coverage.mean, 0)}, 95 % Wilson interval "
        f"{format_interval(coverage)}) ended inside the 80 % interval of the last forecast from their first half; "
        "stopped trials have no outcome and do not count."
    )


def _pruned_trial_row(trial: PruningDecision, metric: Metric) -> TemplateData:
    forecast = trial.forecast
    row = None if forecast is None else forecast.deciding
    return TemplateData(
        number=trial.number,
        decision=_DECISION_LABELS[trial.decision],
        epochs=trial.epochs,
        mean=DASH if row is None else score_text(row.mean, metric),
        interval=DASH if row is None else _forecast_range(row, metric),
        to_beat=score_text(None if forecast is None else forecast.incumbent, metric),
        chance=DASH if row is None else percent(row.chance),
        outcome=_outcome_text(trial, metric),
        reason=one_line(trial.reason),
    )


_DECISION_LABELS = {
    STOPPED: "stopped",
    CONTROL: "control, not stopped",
    EXEMPT: "baseline recipe, never stopped",
}


def _outcome_text(trial: PruningDecision, metric: Metric) -> str:
    if trial.outcome is None:
        return "unknown"
    comparison = {None: "", True: ", beat it", False: ", did not beat it"}[trial.beat_incumbent]
    return score_text(trial.outcome, metric) + comparison


def _forecast_range(row: ForecastRow, metric: Metric) -> str:
    """Returns the bounds of a forecast's interval, e.g. "58.0-63.1 %"."""
    return score_interval(Interval(mean=row.mean, low=row.low, high=row.high, n=1), metric)


def last_forecast_range(forecast: Forecast | None, metric: Metric) -> str:
    """Returns the 80 % interval of a trial's last forecast, or "" without a forecast."""
    return "" if forecast is None else _forecast_range(forecast.last, metric)
