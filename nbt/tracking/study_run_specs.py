"""MLflow runs of a study as plain data, independent of MLflow's client."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from nbt.metrics import METRICS, Metric
from nbt.option import split_codes
from nbt.report.formatting import origin_text
from nbt.report.priors.pruning import (
    CONTROL,
    STOPPED,
    Forecast,
    PruningDecision,
    false_stop_rate,
    forecast_of,
    pruning_decision,
)
from nbt.report.settings_table import flat_settings, stored_flat_settings, study_recipe_summary
from nbt.report.study.checks.registry import study_checks
from nbt.report.study.hardware import lost_workers, trial_location
from nbt.settings import SETTINGS, TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.finals.test_results import test_results
from nbt.tuning.intervals import value_interval
from nbt.tuning.source_accuracies import SourceAccuracies, source_accuracies
from nbt.tuning.space.space import stored_space
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyRecord, TrialRecord

MAX_NAME_LENGTH, MAX_TAG_LENGTH = 250, 5000
"""Maximum length of names and tags that every tracking server accepts."""

STUDY_KEY = "study"
MLFLOW_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "interrupted": "KILLED"}
"""Status of a trial, see `TrialRecord.end` -> status of its run."""


@dataclass(frozen=True, order=True)
class MetricPoint:
    """One value of a metric.

    The timestamp (ms since 1970) is derived from the record, so that writing the record again yields the same value.
    """

    key: str
    step: int
    value: float
    timestamp_ms: int = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Specification of an MLflow run.

    Attributes:
        key: Key of the run within its study: "study", "trial-0012", "final-trial 12-seed-3".
        parent: Key of the parent run; None for the study.
        name: Display name of the run.
        status: MLflow status: RUNNING, FINISHED, KILLED or FAILED.
        params: Parameters; all trials and final runs have the same keys, those of the space's dimensions.
        metrics: All values of all metrics, finite.
        tags: Tags, without those that identify the run.
        started: Start in ms since 1970.
        ended: End in ms since 1970; None while it runs.
    """

    key: str
    parent: str | None
    name: str
    status: str
    params: Mapping[str, str]
    metrics: tuple[MetricPoint, ...]
    tags: Mapping[str, str]
    started: int
    ended: int | None

    @property
    def content_hash(self) -> str:
        """Hash of name, status, parameters, metrics and tags."""
        points = [(point.key, point.step, point.value) for point in sorted(self.metrics)]
        content = [self.name, self.status, sorted(self.params.items()), points, sorted(self.tags.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def study_id(record: StudyRecord) -> str:
    """Returns the identifier of a study, which differs between studies of the same name in different storages."""
    created = "" if record.created is None else record.created.isoformat()
    return hashlib.sha256(f"{record.config.name}\n{created}".encode()).hexdigest()[:16]


def experiment_name(dataset: str) -> str:
    """Returns the experiment of studies and streams: one per dataset, so that they can be compared."""
    return f"nbt {Path(dataset).name or dataset}"[:MAX_NAME_LENGTH]


def study_runs(record: StudyRecord, *, live: bool = False) -> list[RunSpec]:
    """Returns the runs of a study, parents before children; running trials are left out.

    Args:
        record: The study.
        live: Whether the search is still running.
    """
    trials = [trial_run(record, trial) for trial in record.trials if trial.end in MLFLOW_STATUS]
    finals = [seed_run(record, final, run) for final in record.finals for run in final.runs]
    return [study_run(record, live=live), *trials, *finals]


def study_run(record: StudyRecord, *, live: bool) -> RunSpec:
    """Returns the run of the study itself: configuration, progress of the search, and results.

    Args:
        record: The study.
        live: Whether the search is still running.
    """
    config = {name: value for name, value in record.config.to_dict().items() if value is not None}
    config |= {"candidates": record.config.backbones_text} if "candidates" in config else {}
    options = {} if record.search is None else record.search.to_record()
    ended = _ended_trials(record)
    start = _unix_milliseconds(record.created, default=0)
    stop = max([_unix_milliseconds(trial.finished, default=start) for trial in ended], default=start)
    status = "RUNNING" if live else "FINISHED" if record.recommended is not None else "KILLED"
    return RunSpec(
        key=STUDY_KEY,
        parent=None,
        name=record.config.name[:MAX_NAME_LENGTH],
        status=status,
        params={name: str(value) for name, value in (options | config).items()},
        metrics=_finite(
            [
                *_progress_metrics(record, ended, start),
                *_pruning_metrics(record, ended, start),
                *([] if live else _clock_metrics(record, stop)),
                *_result_metrics(record, stop),
            ]
        ),
        tags=_tags(
            {
                "kind": "study",
                "budget": record.budget,
                "pruner": record.pruner,
                "recommended": record.recommended or "",
                "verdict": record.verdict,
                "notes": "; ".join(record.notes),
                **({} if live else _check_tags(record)),
            }
        ),
        started=start,
        ended=None if live else stop,
    )


def _ended_trials(record: StudyRecord) -> list[TrialRecord]:
    """Returns the ended trials in the order in which they ended, which is also the order of writing during a search."""
    ended = [trial for trial in record.trials if trial.end in MLFLOW_STATUS]
    return sorted(ended, key=lambda trial: (_unix_milliseconds(trial.finished, default=0), trial.number))


def _clock_metrics(record: StudyRecord, at: int) -> Iterator[MetricPoint]:
    """Yields the seconds of each phase, and the first estimate of the whole.

    MLflow shows metrics with a slash in their name before all others, so that only curves have one.
    """
    for phase, seconds in record.clock.items():
        yield MetricPoint(f"seconds_{phase}", 0, seconds, at)


def _check_tags(record: StudyRecord) -> dict[str, str]:
    """Returns one tag per check, such as "failed: MESSAGE"; a tag of an ignored check may exist and is overwritten."""
    results = {result.code: f"{result.state}: {result.message}" for result in study_checks(record)}
    ignored = dict.fromkeys(split_codes(record.search_config().ignore), "ignored")
    return {f"nbt.check.{code}": text for code, text in (ignored | results).items()}


def _pruning_metrics(record: StudyRecord, ended: Sequence[TrialRecord], start: int) -> Iterator[MetricPoint]:
    """Yields epochs saved and false-stop rate after each trial that was stopped or is a control.

    The step is the number of ended trials, as for the progress, so that each trial adds points and changes none.
    """
    stopped, saved, controls = 0, 0, list[PruningDecision]()
    for step, trial in enumerate(ended, start=1):
        at = _unix_milliseconds(trial.finished, default=start)
        decision = pruning_decision(trial, trial.settings.epochs, record.config.metric)
        if decision is None:
            continue
        if decision.decision == STOPPED:
            stopped, saved = stopped + 1, saved + decision.epochs_saved
            yield MetricPoint("pruning_stopped", step, float(stopped), at)
            yield MetricPoint("pruning_epochs_saved", step, float(saved), at)
        controls += [decision] if decision.decision == CONTROL else []
        rate = false_stop_rate(controls) if decision.decision == CONTROL else None
        if rate is not None:
            yield MetricPoint("pruning_controls", step, float(rate.n), at)
            yield MetricPoint("pruning_false_stop_rate", step, rate.mean, at)
            for name, bound in (("low", rate.low), ("high", rate.high)):
                if bound is not None:
                    yield MetricPoint(f"pruning_false_stop_rate_{name}", step, bound, at)


def _progress_metrics(record: StudyRecord, ended: Sequence[TrialRecord], start: int) -> Iterator[MetricPoint]:
    """Yields the progress of the search.

    The step is the number of ended trials: with several workers, trials do not end in the order of their numbers.
    """
    best, epochs, cost, metric = -math.inf, 0, 0.0, METRICS[record.config.metric]
    for step, trial in enumerate(ended, start=1):
        at = _unix_milliseconds(trial.finished, default=start)
        epochs, cost = epochs + trial.epochs_spent, cost + trial.cost
        best = max(best, -math.inf if (score := trial.score(metric.name)) is None else score)
        if best > -math.inf:
            yield MetricPoint(f"best_val_{metric.name}", step, metric.value(best), at)
        yield MetricPoint("epochs_spent", step, float(epochs), at)
        if record.epochs_budget:
            yield MetricPoint("budget_spent", step, cost / record.epochs_budget, at)


def _result_metrics(record: StudyRecord, at: int) -> Iterator[MetricPoint]:
    """Yields the results of finals and test."""
    final = record.final(record.recommended) if record.recommended is not None else None
    values: dict[str, float | None] = {}
    metric = METRICS[record.config.metric]
    if final is not None:
        key, interval = f"final_val_{metric.name}", value_interval(final.validation, metric)
        values |= {key: interval.mean, f"{key}_low": interval.low, f"{key}_high": interval.high}
        versus = final.versus_default
        reference = 0.0 if versus is None else final.validation.mean - versus.mean
        values["final_gain"] = None if versus is None else metric.difference(versus.mean, reference)
    for test in record.test:
        prefix = "test" if test.name == "recommended" else f"test_{test.name}"
        values |= {f"{prefix}_accuracy": test.accuracy.mean, f"{prefix}_loss": test.loss}
    values |= _test_values(record)
    source = None if final is None else source_accuracies(record)
    values |= {} if source is None else source_metrics(source)
    for key, value in values.items():
        if value is not None:
            yield MetricPoint(_sanitised_key(key), 0, value, at)


def source_metrics(source: SourceAccuracies) -> dict[str, float | None]:
    """Returns the source accuracies of a study or training by the name of their metric."""
    return {
        "source_reference_accuracy": source.reference,
        "source_accuracy": source.recommended,
        "source_baseline_accuracy": source.baseline,
    }


def _test_values(record: StudyRecord) -> dict[str, float | None]:
    """Returns all metrics on the test images with the bounds of their intervals, the test difference and optimism."""
    results = test_results(record)
    if results is None:
        return {}
    intervals = {"test_difference": results.difference, "optimism": results.optimism}
    for prefix, result in (
        ("test", results.recommended),
        ("test_without_copies", results.recommended.without_copies),
        ("test_baseline", results.baseline),
        ("test_majority", results.majority),
    ):
        if result is not None:
            intervals |= {f"{prefix}_{name}": interval for name, interval in result.metrics.items()}
    values: dict[str, float | None] = {}
    for key, interval in intervals.items():
        if interval is not None:
            values |= {key: interval.mean, f"{key}_low": interval.low, f"{key}_high": interval.high}
    return values


def trial_run(record: StudyRecord, trial: TrialRecord) -> RunSpec:
    """Returns the run of an ended trial, a child of the study's run."""
    start = _unix_milliseconds(trial.started, default=_unix_milliseconds(record.created, default=0))
    final = record.final(record.recommended) if record.recommended is not None else None
    metric = METRICS[record.config.metric]
    tags = {
        "kind": "trial",
        "state": "diverged" if trial.diverged and trial.state == "complete" else trial.end,
        "origin": origin_text(trial.origin),
        "reason": trial.reason,
        "recommended": "yes" if final is not None and final.trial == trial.number else "no",
        "device": str(trial.facts.get("gpu") or trial.facts.get("device") or ""),
        **_recipe_tags(trial.settings, trial.facts),
    }
    location, lost = trial_location(trial.facts), lost_workers([trial])
    tags |= {"node": location.node} if location.node else {}
    tags |= {"gpu_index": location.gpu} if location.gpu else {}
    tags |= {"lost_workers": " ".join(map(str, lost))} if lost else {}
    forecast = forecast_of(trial)
    if forecast is not None:
        tags["control"] = "yes" if forecast.control else "no"
    points, last = curve_metrics(trial.curve, start)
    summary = study_recipe_summary(record.config, trial.settings)
    return RunSpec(
        key=f"trial-{trial.number:04d}",
        parent=STUDY_KEY,
        name=f"{trial.number:03d} {summary} | {_outcome_text(trial, metric)}",
        status=MLFLOW_STATUS[trial.end],
        params=_varied_settings(record, trial.settings),
        metrics=_finite(
            [
                *points,
                *_forecast_metrics(forecast, points, last),
                *_value_metric(trial.score(metric.name), metric, last),
                *_source_metric(trial, last),
            ]
        ),
        tags=_tags(tags),
        started=start,
        ended=max(_unix_milliseconds(trial.finished, default=last), start),
    )


def _varied_settings(record: StudyRecord, settings: TransferSettings) -> dict[str, str]:
    """Returns the settings that the space varies; all if the space of the study is not known any more."""
    columns = _space_columns(record.search_config().space, record.config.space_hash, record.config.teacher)
    values, stored = flat_settings(settings), stored_flat_settings(settings)
    backbone = {"backbone": record.config.backbone_name(settings)} if record.config.candidates else {}
    return {name: str(values[name]) for name in (stored if columns is None else columns)} | backbone


@cache
def _space_columns(space: str, space_hash: str, teacher: str | None) -> tuple[str, ...] | None:
    """Returns the columns of the dimensions of a space; None if it cannot be read or has changed since the search."""
    found = stored_space(space, space_hash, teacher)
    if found is None:
        return None
    return tuple(column for dimension in found.dimensions for column in SETTINGS[dimension.name].columns)


def _recipe_tags(settings: TransferSettings, facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns all settings of a run as one tag, and what its optimiser trained, where it is known."""
    optimizer = facts.get("optimizer", {})
    return {"settings": json.dumps(settings.to_dict()), **{name: str(value) for name, value in optimizer.items()}}


def _outcome_text(trial: TrialRecord, metric: Metric) -> str:
    if trial.state == "failed":
        return trial.end
    if trial.diverged:
        return "diverged"
    score = trial.last_score(metric.name)
    value = "" if score is None else f"{metric.value(score):.3f}"
    return value if trial.state == "complete" else f"{trial.state} {value}".strip()


def seed_run(record: StudyRecord, final: FinalRecord, run: FinalRun) -> RunSpec:
    """Returns the run of one final seed, a child of the trial whose settings it repeats."""
    trial = next((t for t in record.trials if t.number == final.trial and t.end in MLFLOW_STATUS), None)
    origin = record.created if trial is None else trial.finished
    start = _unix_milliseconds(origin, default=_unix_milliseconds(record.created, default=0))
    points, last = curve_metrics(run.curve, start)
    metric = METRICS[record.config.metric]
    return RunSpec(
        key=f"final-{final.name}-seed-{run.seed}",
        parent=STUDY_KEY if trial is None else f"trial-{trial.number:04d}",
        name=f"final {final.name} seed {run.seed} | {metric.value(run.score(metric.name)):.3f}",
        status="FINISHED",
        params=_varied_settings(record, final.settings),
        metrics=_finite([*points, *_value_metric(run.score(metric.name), metric, last)]),
        tags=_tags(
            {
                "kind": "final",
                "candidate": final.name,
                "seed": str(run.seed),
                "state": "complete",
                **_recipe_tags(final.settings, {}),
            }
        ),
        started=start,
        ended=last,
    )


def curve_metrics(curve: Sequence[EpochResult], start: int) -> tuple[list[MetricPoint], int]:
    """Returns the finite metrics of every epoch, and the time of the last one in ms since 1970."""
    points, elapsed = [], float(start)
    for result in curve:
        elapsed += 1000.0 * result.seconds
        values = {key: getattr(result, key) for key in ("train_loss", "val_loss", "val_accuracy", "seconds")}
        for key, value in (values | {f"val_{name}": value for name, value in result.metrics.items()}).items():
            if value is not None and math.isfinite(value):
                points.append(MetricPoint(key, result.epoch, float(value), round(elapsed)))
    return points, round(elapsed)


def _forecast_metrics(forecast: Forecast | None, curve: Sequence[MetricPoint], last: int) -> Iterator[MetricPoint]:
    """Yields the forecasts of a trial's final accuracy; the step is the epoch after which they were made."""
    times = {point.step: point.timestamp_ms for point in curve}
    for row in () if forecast is None else forecast.rows:
        for key in ("mean", "low", "high", "chance"):
            yield MetricPoint(f"pruning_forecast_{key}", row.epoch, getattr(row, key), times.get(row.epoch, last))
    if forecast is not None and forecast.incumbent is not None:
        yield MetricPoint("pruning_to_beat", forecast.deciding.epoch, forecast.incumbent, last)


def _value_metric(score: float | None, metric: Metric, at: int) -> Iterator[MetricPoint]:
    """Yields the value of a run, if it has one."""
    if score is not None:
        yield MetricPoint("value", 0, metric.value(score), at)


def _source_metric(trial: TrialRecord, at: int) -> Iterator[MetricPoint]:
    """Yields the source accuracy of a trial, if it has one."""
    if trial.source_accuracy is not None:
        yield MetricPoint("source_accuracy", 0, trial.source_accuracy, at)


def _finite(points: Sequence[MetricPoint]) -> tuple[MetricPoint, ...]:
    """Returns the finite points, which databases can store and MLflow can plot."""
    return tuple(point for point in points if math.isfinite(point.value))


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:MAX_TAG_LENGTH] for name, value in tags.items()}


def _sanitised_key(key: str) -> str:
    return re.sub(r"[^\w ./-]", "_", key)


def _unix_milliseconds(time: datetime | None, *, default: int) -> int:
    return default if time is None else round(1000 * time.timestamp())
