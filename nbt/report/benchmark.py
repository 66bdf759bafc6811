"""Output files of a replay benchmark: tables as CSV and a figure of regret by epochs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbt.report.files import write_report_files
from nbt.report.formatting import one_line
from nbt.tuning.benchmark.metrics import bootstrap_mean
from nbt.tuning.benchmark.results import ReplayResult, TaskResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = "regret.svg"
_TABLES: dict[str, Callable[[ReplayResult], list[dict[str, Any]]]] = {
    "tasks.csv": ReplayResult.task_rows,
    "summary.csv": ReplayResult.summary_rows,
    "overall.csv": ReplayResult.overall_rows,
    "comparisons.csv": ReplayResult.comparison_rows,
    "searches.csv": ReplayResult.search_rows,
    "curves.csv": ReplayResult.curve_rows,
}
FILES = (*_TABLES, FIGURE)

# Palette of Okabe and Ito, black last; dashes distinguish the lines without colour.
_COLORS = ("#7d8996", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))
_INK, _MUTED, _GRID = "#1b1f24", "#57606a", "#d8dee4"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "replay",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.0,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,
}
_COLUMNS = 3
_MAX_CURVE_POINTS = 150


def write_benchmark(result: ReplayResult, out: str | Path) -> list[Path]:
    """Writes the tables and the figure of a replay to a folder, all files or none.

    Returns:
        The paths of the files.

    Raises:
        NbtError: The folder cannot be written.
    """
    folder = Path(out)
    texts = {
        name: pd.DataFrame(rows(result)).to_csv(index=False, lineterminator="\n", float_format="%.6g")
        for name, rows in _TABLES.items()
    }
    write_report_files(folder, {**texts, FIGURE: regret_figure(result)}, kind="replay")
    return [folder / name for name in FILES]


def regret_figure(result: ReplayResult) -> str:
    """Draws mean regret by epochs with its 95 % band, one panel per task and, for several tasks, one for their mean.

    The panel of a task shows points of accuracy. The panel of the mean shows regret normalised by task, where 0 is the
    best setting and 1 the median setting of the task, over the epochs that all searches cover.

    Returns:
        The figure as SVG with a white background.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = len(result.tasks) + (len(result.tasks) > 1)
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(0.4 + 3.0 * columns, 0.5 + 2.4 * rows), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, task in zip(axes, result.tasks, strict=False):
            _draw_task(panel, task)
        if len(result.tasks) > 1:
            _draw_mean(axes[len(result.tasks)], result)
        for unused in axes[panels:]:
            unused.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), handlelength=2.4)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


def _draw_task(axes: Axes, task: TaskResult) -> None:
    first = task.length - 1
    for index, (name, method) in enumerate(task.methods.items()):
        _draw_curve(axes, index, name, range(task.length, task.horizon + 1), 100 * method.regret["test"][:, first:])
    axes.set_title(one_line(task.name), loc="left")
    _style_axes(axes, "regret, points", 100 * task.range)


def _draw_mean(axes: Axes, result: ReplayResult) -> None:
    first = max(task.length for task in result.tasks)
    last = min(task.horizon for task in result.tasks)
    for index, name in enumerate(result.methods):
        # One curve per seed, averaged over all tasks, so that the band shows the variation between seeds only.
        curves = [task.methods[name].regret["test"][:, first - 1 : last] / task.range for task in result.tasks]
        _draw_curve(axes, index, name, range(first, last + 1), sum(curves) / len(curves))
    axes.set_title(f"mean of {len(result.tasks)} tasks", loc="left")
    _style_axes(axes, "regret, 1 = median setting", 1.0)


def _draw_curve(axes: Axes, index: int, name: str, epochs: Any, curves: Any) -> None:
    shown = np.unique(np.geomspace(1, curves.shape[1], _MAX_CURVE_POINTS).astype(int)) - 1
    epochs, curves = np.asarray(epochs)[shown], curves[:, shown]
    mean, low, high = bootstrap_mean(curves)
    color = _COLORS[index % len(_COLORS)]
    axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)
    style = _DASHES[(index + index // len(_COLORS)) % len(_DASHES)]
    axes.plot(epochs, mean, color=color, linestyle=style, linewidth=1.5, label=one_line(name))


def _style_axes(axes: Axes, label: str, median_setting: float) -> None:
    """Sets labels and scales; regret above 1.5 times that of the median setting is cut off."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="epochs", ylabel=label, ylim=(None, 1.5 * median_setting))
    axes.axhline(0, color=_MUTED, linewidth=0.8)
