"""Drawings of a search over several backbones: what each reached against its latency and its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbt.metrics import Metric
from nbt.report.formatting import format_number, score_text, truncated
from nbt.report.study.backbones import CandidateResult, latency_front, parameters_front
from nbt.report.svg import BEST, FULL, INK, PAPER, render_svg, score_axis, tooltip_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Handles = dict[str, Any]
    Point = tuple[CandidateResult, float]

_MAX_NAME_LENGTH = 24
_HEIGHT = 2.8


def latency_drawing(results: Sequence[CandidateResult], metric: Metric) -> str | None:
    """Draws the score that each backbone reached against its time for one image; None with fewer than two points."""
    points = [(result, result.latency) for result in results if result.latency is not None]
    return _drawing("latency", "milliseconds per image", points, latency_front(results), metric)


def parameters_drawing(results: Sequence[CandidateResult], metric: Metric) -> str | None:
    """Draws the score that each backbone reached against its size; None with fewer than two points."""
    points = [(result, result.parameters / 1e6) for result in results if result.parameters is not None]
    return _drawing("size", "million parameters without the head", points, parameters_front(results), metric)


def _drawing(
    name: str, label: str, points: Sequence[Point], front: Sequence[CandidateResult], metric: Metric
) -> str | None:
    shown = [(result, value) for result, value in points if result.reached is not None]
    if len(shown) < 2:
        return None
    places = dict(shown)

    def draw(axes: Axes) -> Handles:
        axes.set_xscale("log")
        steps = [(places[result], result.reached) for result in front]
        handles = {"Pareto front": axes.step(*zip(*steps, strict=True), where="post", color=BEST, linewidth=1.6)[0]}
        for result, value in shown:
            _draw_point(axes, result, value, is_named=result in front, metric=metric, unit=label)
        axes.set(xlabel=label, ylabel=f"validation {metric.label}")
        _plain_log_axis(axes)
        axes.margins(x=0.25, y=0.15)
        score_axis(axes.yaxis, metric)
        return handles

    return render_svg(f"backbones-{name}", f"Validation {metric.label} of the backbones, {label}", _HEIGHT, draw)


def _draw_point(
    axes: Axes, result: CandidateResult, value: float, *, is_named: bool, metric: Metric, unit: str
) -> None:
    reached, name = result.reached or 0.0, result.config.name
    tip = tooltip_id(f"{name}: {score_text(reached, metric)}, {format_number(value)} {unit}")
    color, marker = (BEST, "D") if result.is_recommended else (FULL, "o")
    axes.plot([value], [reached], linestyle="", marker=marker, color=color, mec=PAPER, markersize=6, gid=tip, zorder=3)
    if is_named:
        text = truncated(name, _MAX_NAME_LENGTH)
        axes.annotate(text, (value, reached), (0, 7), textcoords="offset points", ha="center", fontsize=8, color=INK)


def _plain_log_axis(axes: Axes) -> None:
    """Writes the ticks of the logarithmic axis as plain numbers, several in each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
