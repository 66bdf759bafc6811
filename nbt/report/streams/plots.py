"""Plots of streams: average accuracy after each task, the accuracy matrix, and one curve per task."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.report import svg
from nbt.report.formatting import percent
from nbt.report.streams.comparison import Comparison, MethodStreams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE_SHEET = Path(__file__).parent.parent / "templates" / "report.css"
_MAX_TASKS_WITH_NUMBERS = 10
_MAX_LABELS = 20
_MAX_ALPHA = 0.6
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": svg.BEST, "linewidth": 2.2, "marker": "D", "markersize": 5},
    {"color": svg.FULL, "linewidth": 1.6, "marker": "o", "markersize": 4.5},
    {"color": svg.DEFAULT, "linewidth": 1.6, "marker": "s", "markersize": 4.5, "linestyle": (0, (5, 2))},
    {"color": svg.PRUNED, "linewidth": 1.6, "marker": "v", "markersize": 4.5, "linestyle": (0, (2, 1.2))},
    {"color": svg.INK, "linewidth": 1.2, "marker": "x", "markersize": 4.5, "linestyle": (0, (5, 1.5, 1, 1.5))},
    {"color": svg.FULL, "linewidth": 1.2, "marker": "^", "markersize": 4.5, "linestyle": (0, (1, 1.5))},
    {"color": svg.DEFAULT, "linewidth": 1.2, "marker": "P", "markersize": 4.5},
)


def average_curves(comparison: Comparison) -> str:
    """Draws the average accuracy on the tasks so far after each task, one line and band over streams per method."""

    def draw(axes: Axes) -> dict[str, Any]:
        handles = {}
        for index, runs in enumerate(comparison.methods):
            style = _STYLES[index % len(_STYLES)]
            averages = runs.averages()
            after = range(1, len(averages) + 1)
            tip = svg.tooltip_id(f"{runs.method}: {percent(averages[-1].mean)} at the end")
            (handles[runs.method],) = axes.plot(after, [average.mean for average in averages], gid=tip, **style)
            bounds = [(a.low, a.high) for a in averages if a.low is not None and a.high is not None]
            if len(bounds) == len(averages):
                low, high = zip(*bounds, strict=True)
                axes.fill_between(after, low, high, color=style["color"], alpha=0.13, linewidth=0)
        _style_axes(axes, "average accuracy on the tasks so far")
        return handles

    return svg.render_svg("averages", "Average accuracy after each task", 3.2, draw)


def matrix_heatmap(runs: MethodStreams) -> str:
    """Draws the accuracy after each task (down) on each task (across), in percent; trained tasks have a thin frame."""
    from matplotlib.patches import Rectangle

    matrix = runs.matrix
    tasks = len(matrix)

    def draw(axes: Axes) -> dict[str, Any]:
        for after in range(tasks):
            for task in range(tasks):
                share = float(matrix[after, task])
                trained = task <= after
                tip = svg.tooltip_id(f"after task {after + 1}, on task {task + 1}: {percent(share)}")
                corner = (task + 0.54, after + 0.54)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, facecolor=svg.FULL, alpha=_MAX_ALPHA * share, gid=tip))
                if trained:
                    axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=svg.MUTED, linewidth=0.8))
                if tasks <= _MAX_TASKS_WITH_NUMBERS:
                    color = svg.INK if trained else svg.MUTED
                    axes.text(task + 1, after + 1, f"{100 * share:.0f}", ha="center", va="center", color=color)
        limits = (0.5, tasks + 0.5)
        axes.set(xlim=limits, ylim=limits[::-1], xlabel="accuracy on task, %", ylabel="after task")
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        for axis in (axes.xaxis, axes.yaxis):
            svg.integer_axis(axis)
        return {}

    height = 0.8 + (0.42 * tasks if tasks <= _MAX_TASKS_WITH_NUMBERS else 3.6)
    return svg.render_svg(
        f"matrix-{runs.method}", f"Accuracy of {runs.method} after each task on each task", height, draw
    )


def task_curves(runs: MethodStreams) -> str:
    """Draws the accuracy on each task from its own training on, labelled with the number of the task."""
    matrix = runs.matrix
    tasks = len(matrix)

    def draw(axes: Axes) -> dict[str, Any]:
        for task in range(tasks):
            after = range(task + 1, tasks + 1)
            # Later tasks are drawn lighter, so that crossing lines can be distinguished.
            alpha = 1.0 - 0.6 * task / max(tasks - 1, 1)
            first, last = percent(matrix[task, task]), percent(matrix[-1, task])
            tip = svg.tooltip_id(f"task {task + 1}: {first} after its training, {last} at the end")
            axes.plot(after, matrix[task:, task], color=svg.FULL, alpha=alpha, marker="o", markersize=4, gid=tip)
            if tasks <= _MAX_LABELS:
                start = (task + 1, float(matrix[task, task]))
                axes.annotate(str(task + 1), start, (0, 5), textcoords="offset points", ha="center", fontsize=9)
        _style_axes(axes, "accuracy on each task")
        return {}

    return svg.render_svg(
        f"tasks-{runs.method}", f"Accuracy of {runs.method} on each task since its training", 3.0, draw
    )


def _style_axes(axes: Axes, label: str) -> None:
    axes.set(xlabel="after task", ylabel=label, ylim=(-0.03, 1.06))
    svg.integer_axis(axes.xaxis)
    svg.percent_axis(axes.yaxis)


def standalone_svg(drawing: str) -> str:
    """Returns a drawing as an SVG file with a white background and the light colours of the page."""
    colors = _light_colors()
    text = re.sub(r"var\(--(\w+)\)", lambda match: colors[match[1]], drawing)
    opening, rest = text.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" ', 1)
    return f'{opening}>\n<rect width="100%" height="100%" fill="{colors["paper"]}"/>\n{rest}\n'


@cache
def _light_colors() -> dict[str, str]:
    """Returns the colours of the page's light theme, which is the first block of the style sheet."""
    light = _STYLE_SHEET.read_text(encoding="utf-8").partition("}")[0]
    return dict(re.findall(r"--([\w-]+): (#\w+)", light))
