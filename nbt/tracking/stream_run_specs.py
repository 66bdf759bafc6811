"""MLflow run of a stream as plain data, independent of MLflow's client."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator

from nbt.report.streams.comparison import average_accuracy_curve, effective_sample_size, forgetting_curve
from nbt.report.streams.report_data import flat_stream_settings
from nbt.tracking.study_run_specs import MAX_NAME_LENGTH, MAX_TAG_LENGTH, MetricPoint, RunSpec
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage.stream_record import StreamRecord

STREAM_KEY = "stream"


def stream_id(record: StreamRecord) -> str:
    """Returns the identifier of a stream; repeated runs of the same stream have the same identifier."""
    content = json.dumps([record.config.name, record.config.identity], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def stream_run(record: StreamRecord, *, live: bool = False) -> RunSpec:
    """Returns the run of a stream: its settings, and the accuracies on every task after each task.

    Args:
        record: The stream as far as it was run.
        live: Whether the stream is still running.
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
    """Yields the curves by task; the step is the number of trained tasks."""
    result, elapsed = record.result, float(start)
    averages, forgetting = (average_accuracy_curve(record), forgetting_curve(record)) if result.scores else ([], [])
    for step, score in enumerate(result.scores, start=1):
        elapsed += 1000.0 * score.seconds
        timestamp_ms = round(elapsed)
        for task, accuracy in enumerate(score.accuracies, start=1):
            yield MetricPoint(f"accuracy/task {task:02d}", step, accuracy, timestamp_ms)
        yield MetricPoint("average_accuracy", step, averages[step - 1], timestamp_ms)
        yield MetricPoint("forgetting", step, forgetting[step - 1], timestamp_ms)
        yield MetricPoint("train_loss", step, score.train_loss, timestamp_ms)
        yield MetricPoint("seconds", step, score.seconds, timestamp_ms)
    if record.finished:
        yield from _results(record, round(elapsed))


def _results(record: StreamRecord, timestamp_ms: int) -> Iterator[MetricPoint]:
    """Yields the final results at step 0, which MLflow shows as numbers instead of curves."""
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
            yield MetricPoint(key, 0, value, timestamp_ms)
