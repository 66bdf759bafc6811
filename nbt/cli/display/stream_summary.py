"""Summary of task streams as text: the accuracy matrix of one method, or a comparison of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nbt.cli.display.tables import grid
from nbt.report.formatting import duration
from nbt.report.metric_text import interval_text
from nbt.report.streams.comparison import Comparison, MethodStreams
from nbt.report.streams.report_data import matrix_cells
from nbt.report.streams.text import bytes_text, notes
from nbt.tuning.intervals import Interval

_MAX_TASKS_IN_TABLE = 12


def comparison_text(comparison: Comparison, report: Path) -> list[Any]:
    """Returns a summary of streams: matrix and metrics of one method, or a table with one row per method.

    Args:
        comparison: The streams of every method.
        report: The report, as it is to be shown.
    """
    config = comparison.config
    title = (
        f"{config.dataset}, {config.backbone}: {config.settings.tasks} tasks, {config.settings.scenario}-incremental"
    )
    body = _single_method(comparison.methods[0]) if len(comparison.methods) == 1 else [_methods_table(comparison)]
    return [_text_line(title), *body, *(_text_line(note) for note in notes(comparison)), _text_line(f"report {report}")]


def _single_method(runs: MethodStreams) -> list[Any]:
    table = grid()
    table.add_row("average accuracy", interval_text(runs.average_accuracy), _sample_text(runs))
    table.add_row("forgetting", _points(runs.forgetting), "points below the best accuracy, past tasks")
    forward = runs.forward_transfer
    if forward is None:
        table.add_row("forward transfer", "-", "not defined: no class is known before its task")
    else:
        table.add_row("forward transfer", _points(forward, signed=True), "points on future tasks")
    table.add_row("time", duration(runs.seconds), "per stream")
    tasks = len(runs.matrix)
    return [*([_matrix_table(runs)] if tasks <= _MAX_TASKS_IN_TABLE else []), table]


def _sample_text(runs: MethodStreams) -> str:
    streams = len(runs.streams)
    return f"{streams} streams" if streams > 1 else f"one stream, {sum(runs.streams[0].images)} images"


def _matrix_table(runs: MethodStreams) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column(f"{runs.method}, %: after task", justify="right")
    for number in range(1, len(runs.matrix) + 1):
        table.add_column(f"task {number}", justify="right", min_width=6)
    for after, cells in enumerate(matrix_cells(runs), start=1):
        table.add_row(str(after), *cells)
    return table


def _methods_table(comparison: Comparison) -> Table:
    first = comparison.methods[0].method
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method")
    for name in ("average accuracy", "forgetting", "forward transfer", f"vs {first}, points", "curvature", "time"):
        table.add_column(name, justify="right")
    for runs in comparison.methods:
        forward, versus = runs.forward_transfer, comparison.versus(runs)
        memory = max(stream.curvature_bytes for stream in runs.streams)
        table.add_row(
            runs.method,
            interval_text(runs.average_accuracy),
            _points(runs.forgetting),
            "-" if forward is None else _points(forward, signed=True),
            "-" if versus is None else _points(versus, signed=True),
            bytes_text(memory),
            duration(runs.seconds),
        )
    return table


def _points(interval: Interval, *, signed: bool = False) -> str:
    """Formats a difference of accuracies in points with its interval, as in "3.1  [2.0, 4.2]"."""
    return interval_text(interval, signed=signed).replace(" %", "")


def _text_line(text: str) -> Text:
    return Text(text, overflow="fold")
