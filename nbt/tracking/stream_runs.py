"""A stream as a run for a tracking server, as plain data that knows nothing of MLflow's client."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from nbt.report.streams.comparison import average_accuracy_curve, effective_sample_size, forgetting_curve
from nbt.report.streams.report_data import flat_stream_settings
from nbt.tracking.study_runs import MAX_NAME_LENGTH, MAX_TAG_LENGTH, MetricPoint, RunSpec
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage.stream_record import StreamRecord

STREAM_KEY = "stream"


def stream_id(record: StreamRecord) -> str:
    """Returns what tells a stream from every other one; the same stream, run again, has the same."""
    said = json.dumps([record.config.name, record.config.identity], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def experiment_name(record: StreamRecord) -> str:
    """Returns the experiment that a stream belongs to: one a dataset, that of its searches."""
    dataset = record.config.dataset
    return f"nbt {Path(dataset).name or dataset}"[:MAX_NAME_LENGTH]


def stream_run(record: StreamRecord, *, live: bool = False) -> RunSpec:
    """Returns the run of a stream: its settings, and how every task did after each.

    Args:
        record: The stream, as far as it was run.
        live: It goes on.
    """
    config, result = record.config, record.result
    params = dataclasses.asdict(config) | flat_stream_settings(config.settings)
    del params["settings"], params["own_image_size"]
    start = round(1000 * record.started.timestamp())
    stop = start + round(1000 * result.seconds)
    status = "RUNNING" if live else "FINISHED" if record.finished else "KILLED"
    tags = {
        "kind": "stream",
        "scenario": config.settings.scenario,
        "method": config.method,
        "class_order": ", ".join(result.class_order),
        "evaluated_on": result.evaluate_on,
        "state": "diverged" if result.diverged else "complete" if record.finished else "running" if live else "stopped",
        "device": str(record.facts.get("device", "")),
    }
    return RunSpec(
        key=STREAM_KEY,
        parent=None,
        name=config.name[:MAX_NAME_LENGTH],
        status=status,
        params={name: str(value) for name, value in params.items() if value is not None},
        metrics=tuple(point for point in _points(record, start) if math.isfinite(point.value)),
        tags={name: value[:MAX_TAG_LENGTH] for name, value in tags.items()},
        started=start,
        ended=None if live else stop,
    )


def _points(record: StreamRecord, start: int) -> Iterator[MetricPoint]:
    """Yields the curves by task; the step is how many tasks were learnt."""
    result, at = record.result, float(start)
    averages, falls = (average_accuracy_curve(record), forgetting_curve(record)) if result.scores else ([], [])
    for step, score in enumerate(result.scores, start=1):
        at += 1000.0 * score.seconds
        for task, accuracy in enumerate(score.accuracies, start=1):
            yield MetricPoint(f"accuracy/task {task:02d}", step, accuracy, round(at))
        yield MetricPoint("average_accuracy", step, averages[step - 1], round(at))
        yield MetricPoint("forgetting", step, falls[step - 1], round(at))
        yield MetricPoint("train_loss", step, score.train_loss, round(at))
        yield MetricPoint("seconds", step, score.seconds, round(at))
    if record.finished:
        yield from _results(record, round(at))


def _results(record: StreamRecord, at: int) -> Iterator[MetricPoint]:
    """Yields what came out in the end; the steps are 0, so that pages show numbers and no curves."""
    result = record.result
    average = wilson_interval(result.average_accuracy, effective_sample_size(record.images))
    values = {
        "final_average_accuracy": average.mean,
        "final_average_accuracy_low": average.low,
        "final_average_accuracy_high": average.high,
        "final_forgetting": result.forgetting,
        "backward_transfer": result.backward_transfer,
        "forward_transfer": result.forward_transfer,
        "curvature_bytes": float(record.curvature_bytes),
    }
    for key, value in values.items():
        if value is not None:
            yield MetricPoint(key, 0, value, at)
