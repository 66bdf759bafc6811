"""Figures of a study for notebooks: history of the trials, importance of the settings, confusion matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nbt.errors import NbtError
from nbt.metrics import METRICS
from nbt.report import svg
from nbt.report.figures import LIGHT_COLORS, light_style, notebook_figure
from nbt.report.formatting import truncated
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.test_section import confusion_frame
from nbt.tuning.storage.records import StudyRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.4
_MAX_NUMBERED_CLASSES = 20
_MAX_NAME_LENGTH = 26


def draw_history(record: StudyRecord) -> Figure:
    """Draws the value of each trial after its last epoch by number, and the best of full length so far.

    Raises:
        NbtError: No trial has a value.
    """
    metric, recommendation = METRICS[record.config.metric], current_recommendation(record)
    scored = [(trial, trial.last_score(metric.name)) for trial in record.trials if not trial.diverged]
    shown = [(trial, score) for trial, score in scored if score is not None and math.isfinite(score)]
    if not shown:
        raise NbtError(f"study {record.config.name}: no trial has a value to draw")
    with light_style("history"):
        figure = notebook_figure(_WIDTH, 3.6)
        axes = figure.add_subplot()
        for label, is_full, marker, role in (
            ("full length", True, "o", svg.FULL),
            ("stopped early, after its last epoch", False, "x", svg.PRUNED),
        ):
            points = [(trial.number, score) for trial, score in shown if (trial.state == "complete") == is_full]
            if points:
                axes.plot(*zip(*points, strict=True), marker, color=LIGHT_COLORS[role], markersize=5, label=label)
        full = [(trial.number, score) for trial, score in shown if trial.state == "complete"]
        if full:
            numbers, scores = zip(*full, strict=True)
            best = np.maximum.accumulate(scores)
            axes.step(numbers, best, where="post", color=LIGHT_COLORS[svg.BEST], linewidth=1.6, label="best so far")
        recommended = None if recommendation is None else recommendation.trial
        for trial, score in shown:
            if trial is recommended:
                label, color = f"trial {trial.number}, recommended", LIGHT_COLORS[svg.BEST]
                axes.plot([trial.number], [score], "D", color=color, markersize=7, label=label)
        axes.set(xlabel="trial", ylabel=f"validation {metric.label}")
        svg.integer_axis(axes.xaxis)
        svg.score_axis(axes.yaxis, metric)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def draw_importances(record: StudyRecord, max_rows: int = 12) -> Figure:
    """Draws the importance of the most important dimensions of the space; lines are 95 % intervals.

    Args:
        record: The study.
        max_rows: Largest number of dimensions.

    Raises:
        NbtError: The study has too few trials for importances.
    """
    shares = {name: share for name, share in record.importance.items() if math.isfinite(share)}
    rows = sorted(shares.items(), key=lambda item: item[1])[-max_rows:]
    if not rows:
        raise NbtError(f"study {record.config.name}: too few trials to tell which settings matter")
    with light_style("importances"):
        figure = notebook_figure(_WIDTH, 0.8 + 0.3 * len(rows))
        axes = figure.add_subplot()
        axes.barh([name for name, _ in rows], [share for _, share in rows], color=LIGHT_COLORS[svg.FULL], height=0.62)
        bounds = record.load_importance_bounds()
        for row, (name, _) in enumerate(rows):
            if name in bounds:
                axes.plot(bounds[name], [row, row], color=LIGHT_COLORS[svg.INK], linewidth=1.2)
        axes.set_xlabel("importance: share of the explained variation")
        axes.grid(visible=False, axis="y")
        svg.percent_axis(axes.xaxis)
    return figure


def draw_confusion(record: StudyRecord) -> Figure:
    """Draws the confusion matrix of the test images as shares of each true class, with the numbers of images.

    Raises:
        NbtError: The study has no stored predictions of the test images.
    """
    frame = confusion_frame(record)
    if frame is None:
        raise NbtError(f"study {record.config.name}: no predictions of the test images are stored")
    counts = frame.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [truncated(str(name), _MAX_NAME_LENGTH) for name in frame.columns]
    side = min(9.0, 2.0 + 0.45 * len(names))
    with light_style("confusion"):
        figure = notebook_figure(side + 1.0, side)
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.grid(visible=False)
        if len(names) <= _MAX_NUMBERED_CLASSES:
            for row, column in np.argwhere(counts):
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
        bar = figure.colorbar(image, ax=axes, label="share of the true class")
        svg.percent_axis(bar.ax.yaxis)
    return figure
