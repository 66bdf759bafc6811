"""Summary of the evaluation of a model, as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nbt.cli.display.tables import grid
from nbt.inference.evaluation import ModelEvaluation
from nbt.metrics import METRICS
from nbt.report.formatting import percent, pluralise
from nbt.report.metric_text import interval_text, metric_interval_text
from nbt.report.study.test_section import MAX_CLASSES, MAX_MATRIX_CLASSES
from nbt.tuning.finals.test_results import class_name, confusion_matrix, largest_confusions
from nbt.tuning.intervals import Interval

_MAX_CONFUSIONS = 10
_MAX_NAMES = 10


def evaluation_summary(result: ModelEvaluation, dataset: str) -> list[RenderableType]:
    """Returns the metrics with their intervals, the results by class, and the confusions."""
    part = {"all": "all images", "val": "validation images", "train": "training images", "test": "test images"}
    reason = f" ({result.reason})" if result.reason else ""
    blocks: list[RenderableType] = [
        Text(f"{dataset}: {pluralise(result.n, 'image')}, {part[result.part]}{reason}"),
        _metrics_table(result),
        _classes_table(result),
    ]
    if missing := result.missing_classes:
        shown = ", ".join(missing[:_MAX_NAMES]) + (", ..." if len(missing) > _MAX_NAMES else "")
        verb = "has" if len(missing) == 1 else "have"
        blocks.append(
            Text(f"{len(missing)} of the model's {len(result.class_names)} classes {verb} no images: {shown}")
        )
    return [*blocks, _confusions_table(result)]


def _metrics_table(result: ModelEvaluation) -> RenderableType:
    table = grid()
    for name in sorted(METRICS, key=lambda name: name != result.metric):
        value = result.metrics.get(name)
        text = "not defined for images of one class" if value is None else _value_text(name, value)
        table.add_row(METRICS[name].label, Text(text, style="bold" if name == result.metric else ""))
    table.add_row("accuracy of always guessing the largest class", percent(result.majority))
    return table


def _value_text(metric: str, value: Interval) -> str:
    return interval_text(value) if METRICS[metric].is_share else metric_interval_text(metric, value)


def _classes_table(result: ModelEvaluation) -> RenderableType:
    table = _table("class", "images", "recall", "precision", "F1")
    rows = [row for row in result.class_results if row.images]
    for row in rows[:MAX_CLASSES]:
        table.add_row(row.name, str(row.images), *(percent(value) for value in (row.recall, row.precision, row.f1)))
    if len(rows) > MAX_CLASSES:
        table.add_row(f"... and {len(rows) - MAX_CLASSES} more")
    return table


def _confusions_table(result: ModelEvaluation) -> RenderableType:
    """Returns the confusion matrix of few classes, else the most frequent errors."""
    names, matrix = result.class_names, confusion_matrix(result.results)
    if len(names) <= MAX_MATRIX_CLASSES:
        table = _table("true \\ predicted", *names)
        for name, row in zip(names, matrix.tolist(), strict=True):
            table.add_row(name, *map(str, row))
        return table
    table = _table("most frequent errors", "predicted as", "images", right=("images",))
    for true, guess, images in largest_confusions(matrix, _MAX_CONFUSIONS):
        table.add_row(class_name(true, names), class_name(guess, names), str(images))
    return table


def _table(first: str, *others: str, right: Sequence[str] | None = None) -> Table:
    """Returns an empty table whose columns after the first are aligned on the right, or only those named `right`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text(first))
    for name in others:
        table.add_column(Text(name), justify="right" if right is None or name in right else "left")
    return table
