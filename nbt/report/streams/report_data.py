"""Data of the report of streams, computed from a comparison; the templates only lay it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbt.report.formatting import (
    DASH,
    Fact,
    TemplateData,
    duration,
    format_interval,
    format_number,
    format_timestamp,
    one_line,
    percent,
    pluralise,
    points_interval,
)
from nbt.report.settings_table import flat_settings, setting_descriptions
from nbt.report.streams import text
from nbt.report.streams.comparison import Comparison, MethodStreams
from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings
from nbt.tuning.intervals import Interval

_STREAM_SETTING_DESCRIPTIONS = {
    "factors": "whether the curvatures of past tasks are kept separately or merged",
    "head": "head around which the network is linearised",
    "vectors": "output vectors of the curvature",
}

_MAX_CLASS_NAMES = 12


def build_stream_report(comparison: Comparison) -> TemplateData:
    """Returns the data of the report of streams."""
    config, best = comparison.config, best_method(comparison)
    settings = config.settings
    seeds = pluralise(len(comparison.seeds), "stream")
    dataset = Path(config.dataset).name or config.dataset
    return TemplateData(
        title=f"{one_line(dataset)}: {pluralise(settings.tasks, 'task')}, {settings.scenario}-incremental",
        subtitle=f"{config.backbone}, weights {one_line(config.weights)}; {_seeds_text(comparison)}",
        headline=text.headline(comparison),
        explanation=text.explanation(comparison),
        tiles=_tiles(best),
        notes=text.notes(comparison),
        methods=[_method_row(comparison, runs, best) for runs in comparison.methods],
        reference_method=comparison.methods[0].method,
        single_method=len(comparison.methods) == 1,
        matrices=[
            TemplateData(method=runs.method, rows=matrix_cells(runs), file=matrix_file(runs.method))
            for runs in comparison.methods
        ],
        tasks=_task_rows(comparison),
        order_note="" if len(comparison.seeds) == 1 else f"Tasks of seed {comparison.seeds[0]}, the first of {seeds}.",
        settings=_setting_rows(comparison),
        data_facts=_data_facts(comparison),
        command=comparison.command,
        evaluated_on="test images" if best.streams[0].result.evaluate_on == "test" else "validation images",
    )


def best_method(comparison: Comparison) -> MethodStreams:
    """Returns the method with the highest average accuracy, the first in case of ties."""
    return max(comparison.methods, key=lambda runs: runs.average_accuracy.mean)


def matrix_cells(runs: MethodStreams) -> tuple[tuple[str, ...], ...]:
    """Returns the rows of the matrix in percent; values of tasks not yet trained are in brackets."""
    return tuple(
        tuple(f"{100 * share:.1f}" if task <= after else f"({100 * share:.1f})" for task, share in enumerate(row))
        for after, row in enumerate(runs.matrix)
    )


def _seeds_text(comparison: Comparison) -> str:
    seeds = comparison.seeds
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _tiles(best: MethodStreams) -> list[Fact]:
    average, forgetting, forward = best.average_accuracy, best.forgetting, best.forward_transfer
    return [
        Fact("Average accuracy", percent(average.mean), f"{best.method}, 95 % interval {format_interval(average)}"),
        Fact("Forgetting", text.difference_text(forgetting, signed=False), _interval_note(forgetting)),
        Fact("Forward transfer", text.difference_text(forward), _interval_note(forward)),
        Fact("Time", duration(best.seconds), "per stream"),
    ]


def _interval_note(interval: Interval | None) -> str:
    if interval is None:
        return "not defined: no class is known before its task"
    return "points" if interval.low is None else f"points, 95 % interval {points_interval(interval)}"


def _method_row(comparison: Comparison, runs: MethodStreams, best: MethodStreams) -> TemplateData:
    average, forgetting, versus = runs.average_accuracy, runs.forgetting, comparison.versus(runs)
    return TemplateData(
        name=runs.method,
        accuracy=percent(average.mean),
        interval=format_interval(average),
        forgetting=text.difference_text(forgetting, signed=False),
        forgetting_interval=points_interval(forgetting),
        forward_transfer=text.difference_text(runs.forward_transfer),
        versus=text.difference_text(versus),
        versus_interval=DASH if versus is None else points_interval(versus),
        curvature_memory=text.bytes_text(max(stream.curvature_bytes for stream in runs.streams)),
        seconds=duration(runs.seconds),
        best=runs is best,
    )


def matrix_file(method: str) -> str:
    """Returns the file name of the drawing of a method's matrix."""
    return f"matrix-{method}.svg"


def _task_rows(comparison: Comparison) -> list[TemplateData]:
    stream = comparison.methods[0].streams[0]
    # The number of training images of "joint" includes those of past tasks; other methods have the task's own number.
    sequential = [runs for runs in comparison.methods if runs.config.settings.recipe.stream.method != "joint"]
    scores = (sequential[0].streams[0] if sequential else stream).result.scores
    return [
        TemplateData(
            number=score.task,
            classes=_class_names_text([stream.class_names[label] for label in score.classes]),
            train_images=f"{score.n_train}" + ("" if sequential else " so far"),
            evaluation_images=str(images),
        )
        for score, images in zip(scores, stream.images, strict=True)
    ]


def _class_names_text(names: list[str]) -> str:
    shown = ", ".join(one_line(name) for name in names[:_MAX_CLASS_NAMES])
    return shown if len(names) <= _MAX_CLASS_NAMES else f"{shown} and {len(names) - _MAX_CLASS_NAMES} more"


def flat_stream_settings(settings: ContinualSettings) -> dict[str, Any]:
    """Returns the settings of a stream and of its recipe as one flat row of plain values."""
    stream = {name: getattr(settings, name) for name in ("scenario", "tasks", *_STREAM_SETTING_DESCRIPTIONS)}
    return {**stream, **flat_settings(settings.recipe)}


def _setting_rows(comparison: Comparison) -> list[TemplateData]:
    rows = [flat_stream_settings(runs.config.settings) for runs in comparison.methods]
    recipe = TransferSettings()
    default = flat_stream_settings(ContinualSettings(scenario="class", recipe=recipe))
    names = [name for name in default if name not in ("scenario", "tasks")]
    meanings = {**setting_descriptions(), **_STREAM_SETTING_DESCRIPTIONS}
    return [
        TemplateData(
            name=name,
            values=tuple(format_number(row[name]) for row in rows),
            default=format_number(default[name]),
            meaning=meanings[name],
        )
        for name in names
        if any(row[name] != default[name] for row in rows)
    ]


def _data_facts(comparison: Comparison) -> list[Fact]:
    config, stream = comparison.config, comparison.methods[0].streams[0]
    facts = [
        Fact("Dataset", one_line(config.dataset)),
        Fact("Classes", str(len(stream.class_names))),
        Fact("Evaluation images", str(sum(stream.images)), "in all tasks"),
        Fact("Backbone", one_line(config.backbone), f"weights {one_line(config.weights)}"),
        Fact("Image size", f"{config.image_size} px"),
    ]
    if (device := stream.facts.get("device")) is not None:
        facts.append(Fact("Device", str(device)))
    return [*facts, Fact("Started", format_timestamp(comparison.started))]
