"""A study as runs for a tracking server: what MLflow is told, as plain data that knows nothing of MLflow's client."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nbt.report.fit.correlation import measure_correlations
from nbt.report.priors.diagnostics import PriorDiagnostics, PriorEvidence, prior_diagnostics
from nbt.report.priors.pruning import CONTROL, STOPPED, Forecast, PruningDecision, false_stop_rate, forecast_of, judge
from nbt.report.settings_table import flat_settings, recipe_summary
from nbt.report.study.hardware import lost_workers, trial_location
from nbt.training.results import EpochResult
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyRecord, TrialRecord

MAX_NAME_LENGTH, MAX_TAG_LENGTH = 250, 5000
"""The most characters of a name and of a tag that every tracking server takes."""

_MAX_KEY_PART_LENGTH = 150
STUDY_KEY = "study"
MLFLOW_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "interrupted": "KILLED"}
"""How a trial ended, see `TrialRecord.end` -> status of its run."""


@dataclass(frozen=True, order=True)
class MetricPoint:
    """One value of a metric. The time (ms since 1970) is derived from the record, so it is the same every time."""

    key: str
    step: int
    value: float
    time: int = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One MLflow run as it should be.

    Attributes:
        key: Names it in its study: "study", "trial-0012", "final-trial 12-seed-3".
        parent: Key of the run it is a child of; None for the study.
        name: What MLflow's tables and legends call it.
        status: MLflow's: RUNNING, FINISHED, KILLED, FAILED.
        params: The same keys in each trial and final run.
        metrics: All values of all metrics, finite.
        tags: Without those that make it findable.
        started: ms since 1970.
        ended: ms since 1970; None while it runs.
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
    def content(self) -> str:
        """Hash of everything that it says."""
        points = [(point.key, point.step, point.value) for point in sorted(self.metrics)]
        said = [self.name, self.status, sorted(self.params.items()), points, sorted(self.tags.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def study_id(record: StudyRecord) -> str:
    """Returns what tells a study from every other one, also of the same name in another storage."""
    created = "" if record.created is None else record.created.isoformat()
    return hashlib.sha256(f"{record.config.name}\n{created}".encode()).hexdigest()[:16]


def experiment_name(record: StudyRecord) -> str:
    """Returns the experiment that a study belongs to: one a dataset, so that its studies can be compared."""
    dataset = record.config.dataset
    return f"nbt {Path(dataset).name or dataset}"[:MAX_NAME_LENGTH]


def study_runs(record: StudyRecord, *, live: bool = False) -> list[RunSpec]:
    """Returns the runs of a study, parents before children; trials that still run are left out.

    Args:
        record: The study.
        live: The search goes on, so the study's own run is RUNNING.
    """
    trials = [trial_run(record, trial) for trial in record.trials if trial.end in MLFLOW_STATUS]
    finals = [seed_run(record, final, run) for final in record.finals for run in final.runs]
    return [study_run(record, live=live), *trials, *finals]


def study_run(record: StudyRecord, *, live: bool) -> RunSpec:
    """Returns the run of the study itself: what defines it, how the search went, what came out."""
    config = {name: value for name, value in dataclasses.asdict(record.config).items() if value is not None}
    ended, guided = _ended_trials(record), prior_diagnostics(record)
    start = _unix_milliseconds(record.created, default=0)
    stop = max([_unix_milliseconds(trial.finished, default=start) for trial in ended], default=start)
    status = "RUNNING" if live else "FINISHED" if record.recommended is not None else "KILLED"
    return RunSpec(
        key=STUDY_KEY,
        parent=None,
        name=record.config.name[:MAX_NAME_LENGTH],
        status=status,
        params={name: str(value) for name, value in config.items()},
        metrics=_finite(
            [
                *_fit_metrics(record, start),
                *_prior_metrics(guided, start),
                *_progress_metrics(record, ended, start),
                *_pruning_metrics(record, ended, start),
                *([] if live else _correlation_metrics(record, stop)),
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
                **_prior_tags(guided),
            }
        ),
        started=start,
        ended=None if live else stop,
    )


def _ended_trials(record: StudyRecord) -> list[TrialRecord]:
    """Returns the trials that ended, in the order in which they did: also that of the calls during the search."""
    ended = [trial for trial in record.trials if trial.end in MLFLOW_STATUS]
    return sorted(ended, key=lambda trial: (_unix_milliseconds(trial.finished, default=0), trial.number))


def _fit_metrics(record: StudyRecord, at: int) -> Iterator[MetricPoint]:
    """Yields the fit profile: its scalars, and the curves by unit with the unit's index as the step."""
    profile = record.profile or {}
    for name, value in profile.get("scalars", {}).items():
        if value is not None:
            yield MetricPoint(_sanitised_key(f"fit/{name}"), 0, float(value), at)
    for unit, row in enumerate(profile.get("layers", ())):
        for name, value in row.items():
            if name != "unit" and value is not None:
                yield MetricPoint(_sanitised_key(f"fit_layer/{name}"), unit, float(value), at)


def _prior_metrics(found: PriorDiagnostics | None, at: int) -> Iterator[MetricPoint]:
    """Yields what each source was expected to be worth, what the trials made of it, and how far they agree."""
    for part, source in _prior_keys(found).items():
        values = {
            "weight_before": source.before,
            "spread_before": source.spread,
            "weight_after": source.after,
            "spread_after": source.after_spread,
            "agreement": source.agreement,
        }
        for name, value in values.items():
            if value is not None:
                yield MetricPoint(f"guide/{part}/{name}", 0, value, at)


def _prior_tags(found: PriorDiagnostics | None) -> dict[str, str]:
    """Returns what guided the search in words: each source, what did not fire, and the recorded tasks."""
    if found is None:
        return {}
    return {
        **{
            f"guide/{part}": f"{source.verdict}: {source.words} ({source.origin})"
            for part, source in _prior_keys(found).items()
        },
        "guide_silent": "; ".join(f"{name}: {reason}" for name, reason in found.silent),
        "guide_tables": "; ".join(found.tables) or "none: rules alone",
    }


def _prior_keys(found: PriorDiagnostics | None) -> dict[str, PriorEvidence]:
    """Returns the sources by what stands for them in a key; no two have the same."""
    parts: dict[str, PriorEvidence] = {}
    for source in () if found is None else found.sources:
        # Servers take no key that is a path with "..", "//" or an end in "/", nor a long one.
        plain = _sanitised_key(source.name).replace("/", "_")[:_MAX_KEY_PART_LENGTH].strip(" .") or "_"
        part, count = plain, 1
        while part in parts:
            count += 1
            part = f"{plain} {count}"
        parts[part] = source
    return parts


def _pruning_metrics(record: StudyRecord, ended: Sequence[TrialRecord], start: int) -> Iterator[MetricPoint]:
    """Yields what pruning saved and how often it was wrong, after each trial that was stopped or is a control.

    The step is how many trials had ended, as for the progress: so each trial adds points and changes none.
    """
    decisions: list[PruningDecision] = []
    for step, trial in enumerate(ended, start=1):
        at = _unix_milliseconds(trial.finished, default=start)
        one = judge(trial, record.config.epochs)
        if one is None:
            continue
        decisions.append(one)
        if one.decision == STOPPED:
            yield MetricPoint("pruning/stopped", step, float(sum(other.decision == STOPPED for other in decisions)), at)
            yield MetricPoint("pruning/epochs_saved", step, float(sum(other.saved for other in decisions)), at)
        rate = false_stop_rate(decisions) if one.decision == CONTROL else None
        if rate is not None:
            yield MetricPoint("pruning/controls", step, float(rate.n), at)
            yield MetricPoint("pruning/false_stop_rate", step, rate.mean, at)
            for name, bound in (("low", rate.low), ("high", rate.high)):
                if bound is not None:
                    yield MetricPoint(f"pruning/false_stop_rate_{name}", step, bound, at)


def _correlation_metrics(record: StudyRecord, at: int) -> Iterator[MetricPoint]:
    """Yields how each measure of the profile went with accuracy at both depths, beside the depth itself.

    Every trial changes all of them, so they are told when the search is over.
    """
    for one in measure_correlations(record):
        for name, value in (("", one.tau), ("_baseline", one.baseline)):
            if one.tau is not None and value is not None:
                yield MetricPoint(f"skill/{one.depth}/{one.measure}{name}", 0, value, at)


def _progress_metrics(record: StudyRecord, ended: Sequence[TrialRecord], start: int) -> Iterator[MetricPoint]:
    """Yields how the search went. The step is how many trials had ended: with several workers, numbers jump."""
    best, epochs = -math.inf, 0
    for step, trial in enumerate(ended, start=1):
        at = _unix_milliseconds(trial.finished, default=start)
        epochs += trial.epochs_spent
        if trial.state == "complete" and trial.val_accuracy is not None:
            best = max(best, trial.val_accuracy)
        yield MetricPoint("best_val_accuracy", step, best, at)
        yield MetricPoint("epochs_spent", step, float(epochs), at)
        if record.epochs_budget:
            yield MetricPoint("budget_spent", step, epochs / record.epochs_budget, at)


def _result_metrics(record: StudyRecord, at: int) -> Iterator[MetricPoint]:
    """Yields what came out in the end."""
    final = record.final(record.recommended) if record.recommended is not None else None
    values: dict[str, float | None] = {}
    if final is not None:
        values["final_val_accuracy"] = final.validation.mean
        values["final_val_accuracy_low"], values["final_val_accuracy_high"] = (
            final.validation.low,
            final.validation.high,
        )
        values["final_gain"] = None if final.versus_default is None else final.versus_default.mean
    for test in record.test:
        prefix = "test" if test.name == "recommended" else f"test_{test.name}"
        values |= {f"{prefix}_accuracy": test.accuracy.mean, f"{prefix}_loss": test.loss}
    for key, value in values.items():
        if value is not None:
            yield MetricPoint(_sanitised_key(key), 0, value, at)


def trial_run(record: StudyRecord, trial: TrialRecord) -> RunSpec:
    """Returns the run of a trial that ended, a child of the study's."""
    start = _unix_milliseconds(trial.started, default=_unix_milliseconds(record.created, default=0))
    final = record.final(record.recommended) if record.recommended is not None else None
    tags = {
        "kind": "trial",
        "state": "diverged" if trial.diverged and trial.state == "complete" else trial.end,
        "origin": trial.origin,
        "reason": trial.reason,
        "recommended": "yes" if final is not None and final.trial == trial.number else "no",
        "device": str(trial.facts.get("gpu") or trial.facts.get("device") or ""),
    }
    location, lost = trial_location(trial.facts), lost_workers([trial])
    tags |= {"node": location.node} if location.node else {}
    tags |= {"gpu_index": location.gpu} if location.gpu else {}
    tags |= {"lost_workers": " ".join(map(str, lost))} if lost else {}
    forecast = forecast_of(trial)
    if forecast is not None:
        tags["control"] = "yes" if forecast.control else "no"
    points, last = _curve_metrics(trial.curve, start)
    return RunSpec(
        key=f"trial-{trial.number:04d}",
        parent=STUDY_KEY,
        name=f"{trial.number:03d} {recipe_summary(trial.settings)} | {_outcome_text(trial)}",
        status=MLFLOW_STATUS[trial.end],
        params={name: str(value) for name, value in flat_settings(trial.settings).items()},
        metrics=_finite(
            [
                *points,
                *_forecast_metrics(forecast, points, last),
                *_summary_metrics(trial.val_accuracy, len(trial.curve), last),
            ]
        ),
        tags=_tags(tags),
        started=start,
        ended=max(_unix_milliseconds(trial.finished, default=last), start),
    )


def _outcome_text(trial: TrialRecord) -> str:
    if trial.state == "failed":
        return trial.end
    if trial.diverged:
        return "diverged"
    accuracy = "" if trial.val_accuracy is None else f"{trial.val_accuracy:.3f}"
    return accuracy if trial.state == "complete" else f"{trial.state} {accuracy}".strip()


def seed_run(record: StudyRecord, final: FinalRecord, run: FinalRun) -> RunSpec:
    """Returns the run of one final seed, a child of the trial whose recipe it repeats."""
    trial = next((t for t in record.trials if t.number == final.trial and t.end in MLFLOW_STATUS), None)
    origin = record.created if trial is None else trial.finished
    start = _unix_milliseconds(origin, default=_unix_milliseconds(record.created, default=0))
    points, last = _curve_metrics(run.curve, start)
    return RunSpec(
        key=f"final-{final.name}-seed-{run.seed}",
        parent=STUDY_KEY if trial is None else f"trial-{trial.number:04d}",
        name=f"final {final.name} seed {run.seed} | {run.val_accuracy:.3f}",
        status="FINISHED",
        params={name: str(value) for name, value in flat_settings(final.settings).items()},
        metrics=_finite([*points, *_summary_metrics(run.val_accuracy, len(run.curve), last)]),
        tags=_tags({"kind": "final", "candidate": final.name, "seed": str(run.seed), "state": "complete"}),
        started=start,
        ended=last,
    )


def _curve_metrics(curve: Sequence[EpochResult], start: int) -> tuple[list[MetricPoint], int]:
    """Returns the metrics of every epoch, and the time of the last."""
    points, at = [], float(start)
    for result in curve:
        at += 1000.0 * result.seconds
        for key in ("train_loss", "val_loss", "val_accuracy", "seconds"):
            value = getattr(result, key)
            if value is not None:
                points.append(MetricPoint(key, result.epoch, float(value), round(at)))
    return points, round(at)


def _forecast_metrics(forecast: Forecast | None, curve: Sequence[MetricPoint], last: int) -> Iterator[MetricPoint]:
    """Yields every forecast of a trial's final accuracy, with the epoch after which it was made as the step."""
    times = {point.step: point.time for point in curve}
    for row in () if forecast is None else forecast.rows:
        for key in ("mean", "low", "high", "chance"):
            yield MetricPoint(f"forecast/{key}", row.epoch, getattr(row, key), times.get(row.epoch, last))
    if forecast is not None and forecast.incumbent is not None:
        yield MetricPoint("forecast/to_beat", forecast.deciding.epoch, forecast.incumbent, last)


def _summary_metrics(accuracy: float | None, epochs: int, at: int) -> Iterator[MetricPoint]:
    if accuracy is not None:
        yield MetricPoint("best_val_accuracy", 0, accuracy, at)
    yield MetricPoint("epochs", 0, float(epochs), at)


def _finite(points: Sequence[MetricPoint]) -> tuple[MetricPoint, ...]:
    """Returns the points that databases can hold and pages can draw."""
    return tuple(point for point in points if math.isfinite(point.value))


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:MAX_TAG_LENGTH] for name, value in tags.items()}


def _sanitised_key(key: str) -> str:
    return re.sub(r"[^\w ./-]", "_", key)


def _unix_milliseconds(moment: datetime | None, *, default: int) -> int:
    return default if moment is None else round(1000 * moment.timestamp())
