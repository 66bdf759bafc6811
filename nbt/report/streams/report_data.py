"""StreamReport: all that the report of streams says, computed from a comparison; templates only lay it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbt.report.formatting import (
    DASH,
    Fact,
    duration,
    format_interval,
    format_number,
    format_timestamp,
    one_line,
    percent,
    pluralise,
    points_interval,
)
from nbt.report.settings_table import SETTING_DESCRIPTIONS, flat_settings
from nbt.report.streams import text as text
from nbt.report.streams.comparison import Comparison, MethodStreams
from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings
from nbt.tuning.intervals import Interval

_STREAM_SETTING_DESCRIPTIONS = {
    "factors": "whether the curvatures of past tasks are kept apart or merged",
    "head": "head around which the network is linearised",
    "vectors": "output vectors of the curvature",
}


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """A method's line in the table."""

    name: str
    accuracy: str
    interval: str
    forgetting: str
    forgetting_interval: str
    forward: str
    versus: str
    versus_interval: str
    memory: str
    seconds: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class MatrixSection:
    """A method's matrix in percent.

    Attributes:
        method: Its name.
        rows: One a task after which was measured: its cells, those of tasks to come in brackets.
        file: Name of its drawing.
    """

    method: str
    rows: tuple[tuple[str, ...], ...]
    file: str


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task of the first stream."""

    number: int
    classes: str
    train: str
    images: str


@dataclass(frozen=True, kw_only=True)
class StreamSettingRow:
    """A setting of every method, where it is another than the default recipe's for one of them."""

    name: str
    values: tuple[str, ...]
    default: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """What the report shows, in text.

    Attributes:
        title: What was learnt.
        subtitle: Backbone, weights, seeds.
        headline: The answer.
        explanation: Sentences below it.
        tiles: Numbers at a glance, of the best method.
        notes: What a reader must not miss.
        methods: The table of methods.
        versus: Name of the method that the others are compared to.
        single: There is one method.
        matrices: One a method.
        tasks: Of the first stream.
        order_note: Remark on the other streams' tasks.
        settings: What differs from the default recipe.
        data: Facts on data and machine.
        command: That makes it again; "" where there is none.
        evaluated: "test images" or "validation images".
    """

    title: str
    subtitle: str
    headline: str
    explanation: list[str]
    tiles: list[Fact]
    notes: list[str]
    methods: list[MethodRow]
    versus: str
    single: bool
    matrices: list[MatrixSection]
    tasks: list[TaskRow]
    order_note: str
    settings: list[StreamSettingRow]
    data: list[Fact]
    command: str
    evaluated: str


def build_stream_report(comparison: Comparison) -> StreamReport:
    """Computes what the report says."""
    config, best = comparison.config, best_method(comparison)
    settings = config.settings
    seeds = pluralise(len(comparison.seeds), "stream")
    dataset = Path(config.dataset).name or config.dataset
    return StreamReport(
        title=f"{one_line(dataset)}: {pluralise(settings.tasks, 'task')}, {settings.scenario}-incremental",
        subtitle=f"{config.backbone}, weights {one_line(config.weights)}; {_seeds_text(comparison)}",
        headline=text.headline(comparison),
        explanation=text.explanation(comparison),
        tiles=_tiles(best),
        notes=text.notes(comparison),
        methods=[_method_row(comparison, runs, best) for runs in comparison.methods],
        versus=comparison.methods[0].method,
        single=len(comparison.methods) == 1,
        matrices=[_matrix_section(runs) for runs in comparison.methods],
        tasks=_task_rows(comparison),
        order_note="" if len(comparison.seeds) == 1 else f"Of seed {comparison.seeds[0]}, the first of {seeds}.",
        settings=_setting_rows(comparison),
        data=_data_facts(comparison),
        command=comparison.command,
        evaluated="test images" if best.streams[0].result.evaluate_on == "test" else "validation images",
    )


def best_method(comparison: Comparison) -> MethodStreams:
    """Returns the method of the highest average accuracy, the first of equal ones."""
    return max(comparison.methods, key=lambda runs: runs.average_accuracy.mean)


def matrix_cells(runs: MethodStreams) -> tuple[tuple[str, ...], ...]:
    """Returns the matrix in percent, row after row; what was measured before a task was learnt is in brackets."""
    return tuple(
        tuple(f"{100 * share:.1f}" if of <= after else f"({100 * share:.1f})" for of, share in enumerate(row))
        for after, row in enumerate(runs.matrix)
    )


def _seeds_text(comparison: Comparison) -> str:
    seeds = comparison.seeds
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _tiles(best: MethodStreams) -> list[Fact]:
    forward = best.forward_transfer
    fall = best.forgetting
    average = best.average_accuracy
    return [
        Fact("Average accuracy", percent(average.mean), f"{best.method}, 95 % interval {format_interval(average)}"),
        Fact("Forgetting", text.difference_text(fall, signed=False), _interval_note(fall)),
        Fact("Forward transfer", text.difference_text(forward), _forward_note(forward)),
        Fact("Time", duration(best.seconds), "a stream"),
    ]


def _interval_note(interval: Interval) -> str:
    return "points" if interval.low is None else f"points, 95 % interval {points_interval(interval)}"


def _forward_note(interval: Interval | None) -> str:
    return "not defined: no class is known before its task" if interval is None else _interval_note(interval)


def _method_row(comparison: Comparison, runs: MethodStreams, best: MethodStreams) -> MethodRow:
    average, fall, versus = runs.average_accuracy, runs.forgetting, comparison.versus(runs)
    return MethodRow(
        name=runs.method,
        accuracy=percent(average.mean),
        interval=format_interval(average),
        forgetting=text.difference_text(fall, signed=False),
        forgetting_interval=points_interval(fall),
        forward=text.difference_text(runs.forward_transfer),
        versus=text.difference_text(versus),
        versus_interval=DASH if versus is None else points_interval(versus),
        memory=text.bytes_text(max(stream.curvature_bytes for stream in runs.streams)),
        seconds=duration(runs.seconds),
        best=runs is best,
    )


def _matrix_section(runs: MethodStreams) -> MatrixSection:
    return MatrixSection(method=runs.method, rows=matrix_cells(runs), file=matrix_file(runs.method))


def matrix_file(method: str) -> str:
    """Returns the name of the drawing of a method's matrix."""
    return f"matrix-{method}.svg"


def _task_rows(comparison: Comparison) -> list[TaskRow]:
    stream = comparison.methods[0].streams[0]
    # Joint training counts the images of past tasks; the others tell a task's own.
    own = next((runs.streams[0] for runs in comparison.methods if runs.config.settings.recipe.method != "joint"), None)
    scores = (own or stream).result.scores
    return [
        TaskRow(
            number=score.task,
            classes=_class_names_text([stream.class_names[label] for label in score.classes]),
            train=f"{score.n_train}" + ("" if own is not None else " so far"),
            images=str(images),
        )
        for score, images in zip(scores, stream.images, strict=True)
    ]


def _class_names_text(names: list[str], most: int = 12) -> str:
    shown = ", ".join(one_line(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def flat_stream_settings(settings: ContinualSettings) -> dict[str, Any]:
    """Returns the settings of a stream and of its recipe as one flat row of plain values."""
    own = {name: getattr(settings, name) for name in ("scenario", "tasks", *_STREAM_SETTING_DESCRIPTIONS)}
    return {**own, **flat_settings(settings.recipe)}


def _setting_rows(comparison: Comparison) -> list[StreamSettingRow]:
    rows = [flat_stream_settings(runs.config.settings) for runs in comparison.methods]
    recipe = TransferSettings()
    usual = flat_stream_settings(ContinualSettings(scenario="class", recipe=recipe))
    names = [name for name in usual if name not in ("scenario", "tasks")]
    return [
        StreamSettingRow(
            name=name,
            values=tuple(format_number(row[name]) for row in rows),
            default=format_number(usual[name]),
            meaning=_STREAM_SETTING_DESCRIPTIONS.get(name) or SETTING_DESCRIPTIONS[name],
        )
        for name in names
        if any(row[name] != usual[name] for row in rows)
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
