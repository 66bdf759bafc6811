"""Plots of a study as inline SVG.

Colours are roles (ink, grid, best ...) that the style sheet of the page resolves, so that one drawing serves a light
and a dark page. The style sheet uses the palette of Okabe and Ito, which colour-blind readers can distinguish; markers
and dashes repeat the distinction. Drawings have the width of a phone, so that their text stays readable there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from nbt.metrics import METRICS, Metric
from nbt.report.formatting import duration, percent, score_text, truncated
from nbt.report.study.drawn_trials import drawn_trials
from nbt.report.study.recommendation import current_recommendation, default_recipe_settings, default_recipe_trial
from nbt.report.svg import (
    BEST,
    DEFAULT,
    FULL,
    INK,
    MUTED,
    PAPER,
    PRUNED,
    integer_axis,
    percent_axis,
    render_svg,
    score_axis,
    tooltip_id,
)
from nbt.tuning import source_accuracies
from nbt.tuning.storage.records import FinalRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Handles = dict[str, Any]

_MAX_LABEL_LENGTH = 26


def learning_curves(record: StudyRecord) -> str | None:
    """Draws validation accuracy by epoch, one line per drawn trial; None if no trial has an epoch to show.

    Pruned and failed trials are thin, dotted and end in a cross; full-length trials are solid. The recommended trial
    and the default recipe are thick.
    """
    metric = METRICS[record.config.metric]
    shown = [trial for trial in drawn_trials(record) if _points(trial, metric)]
    if not shown:
        return None
    best, baseline = _recommended_trial(record), default_recipe_trial(record)

    def draw(axes: Axes) -> Handles:
        handles: Handles = {}
        for trial in sorted(shown, key=lambda trial: (trial is best, trial is baseline, trial.state == "complete")):
            label, style = _line_style(trial, best, baseline)
            epochs, accuracies = zip(*_points(trial, metric), strict=True)
            (line,) = axes.plot(epochs, accuracies, gid=tooltip_id(_describe(trial, metric)), **style)
            if trial.state != "complete":
                axes.plot(epochs[-1:], accuracies[-1:], marker="x", markersize=4, color=style["color"], linestyle="")
            handles.setdefault(label, line)
        axes.set(xlabel="epoch", ylabel=_axis_label(metric))
        integer_axis(axes.xaxis)
        axes.set_xlim(left=min(1, *(trial.curve[0].epoch for trial in shown)) - 0.2)
        score_axis(axes.yaxis, metric)
        return handles

    return render_svg("curves", "Learning curves of the trials", 3.2, draw)


def best_by_cost(record: StudyRecord) -> str | None:
    """Draws the score of each trial and the best so far, with its standard error, against the cost of the trials.

    None without scores. A trial lies at the cost of all trials that ended before it and its own. The axis of scores
    covers the full-length trials; pruned trials below that range, diverged and failed trials lie on its lower edge.
    """
    metric = METRICS[record.config.metric]
    trials, spent = _ended_trials(record)
    measured = [trial for trial in trials if _score(trial, metric) is not None]
    if not measured:
        return None
    ranged = [_score(trial, metric) or 0.0 for trial in [t for t in measured if t.state == "complete"] or measured]
    floor = max(0.0, min(ranged) - 0.1 * max(max(ranged) - min(ranged), 0.05))
    best, baseline = _recommended_trial(record), default_recipe_trial(record)
    drawn = {trial.number for trial in drawn_trials(record)}

    def draw(axes: Axes) -> Handles:
        handles: Handles = {}
        costs, reached = _best_so_far(trials, spent, metric)
        if costs:
            (handles["best so far"],) = axes.step(costs, reached, where="post", color=BEST, linewidth=1.6)
            if record.noise is not None:
                lower = [max(value - record.noise, 0.0) for value in reached]
                upper = [min(value + record.noise, 1.0) for value in reached]
                band = axes.fill_between(costs, lower, upper, step="post", color=BEST, alpha=0.15, linewidth=0)
                handles["± 1 standard error"] = band
        for trial, cost in zip(trials, spent, strict=True):
            if trial.number not in drawn:
                continue
            label, style = _marker_style(trial, best, baseline, metric)
            accuracy = _score(trial, metric)
            where = floor if accuracy is None else max(accuracy, floor)
            tip = tooltip_id(_describe(trial, metric))
            (point,) = axes.plot([cost], [where], linestyle="", gid=tip, clip_on=False, zorder=3, **style)
            handles.setdefault(label, point)
        axes.set(xlabel="cost in trials of the default recipe", ylabel=_axis_label(metric))
        axes.set_ylim(bottom=floor)
        score_axis(axes.yaxis, metric)
        return handles

    return render_svg("trials", f"Best validation {metric.label} against the cost of the trials", 3.2, draw)


def cost_front(record: StudyRecord) -> str | None:
    """Draws the score of each full-length trial against its training time, and their Pareto front.

    None with fewer than two such trials.
    """
    metric, front = METRICS[record.config.metric], pareto_front(record)
    shown = [trial for trial in drawn_trials(record) if trial.state == "complete" and _score(trial, metric) is not None]
    if len(shown) < 2:
        return None
    best, baseline = _recommended_trial(record), default_recipe_trial(record)

    def draw(axes: Axes) -> Handles:
        handles: Handles = {}
        steps = [(trial.seconds, _score(trial, metric)) for trial in front]
        (handles["Pareto front"],) = axes.step(*zip(*steps, strict=True), where="post", color=BEST, linewidth=1.6)
        for trial in shown:
            label, style = _marker_style(trial, best, baseline, metric)
            tip, score = (
                tooltip_id(f"{_describe(trial, metric)}, {duration(trial.seconds)}"),
                _score(trial, metric) or 0.0,
            )
            (point,) = axes.plot([trial.seconds], [score], linestyle="", gid=tip, clip_on=False, zorder=3, **style)
            handles.setdefault(label, point)
        axes.set(xlabel="training time of the trial, seconds", ylabel=_axis_label(metric), xlim=(0, None))
        score_axis(axes.yaxis, metric)
        return handles

    return render_svg("front", f"Validation {metric.label} against training time", 3.2, draw)


def pareto_front(record: StudyRecord) -> list[TrialRecord]:
    """Returns the full-length trials than which no other is both better and faster to train, the fastest first."""
    metric = METRICS[record.config.metric]
    scored = [(trial, _score(trial, metric)) for trial in record.trials if trial.state == "complete"]
    known = [(trial, score) for trial, score in scored if score is not None]
    front: list[TrialRecord] = []
    reached = -math.inf
    for trial, score in sorted(known, key=lambda item: (item[0].seconds, -item[1])):
        if score > reached:
            front.append(trial)
            reached = score
    return front


def source_front(record: StudyRecord) -> str | None:
    """Draws the score of each full-length trial against its source accuracy, and their Pareto front.

    A dashed line is the source accuracy of the pretrained weights, if the search has one backbone. None without a trial
    that has both.
    """
    metric, front = METRICS[record.config.metric], source_accuracies.source_front(record)
    if record.source is None or not front:
        return None
    references = record.source.references
    shown = [trial for trial in drawn_trials(record) if trial.source_accuracy is not None and not trial.diverged]
    best, baseline = _recommended_trial(record), default_recipe_trial(record)

    def draw(axes: Axes) -> Handles:
        handles: Handles = {}
        steps = sorted((trial.source_accuracy or 0.0, _score(trial, metric) or 0.0) for trial in front)
        # Left of a trial of the front, its score is the best with at least so much source accuracy.
        (handles["Pareto front"],) = axes.step(*zip(*steps, strict=True), where="pre", color=BEST, linewidth=1.6)
        axes.plot(*zip(*steps, strict=True), linestyle="", marker="o", markersize=9, mfc="none", color=BEST)
        if not record.config.candidates:
            handles["pretrained weights"] = axes.axvline(references[""], color=MUTED, linestyle=(0, (5, 2)))
        for trial in shown:
            label, style = _marker_style(trial, best, baseline, metric)
            tip = tooltip_id(f"{_describe(trial, metric)}, source {percent(trial.source_accuracy or 0.0)}")
            where = [trial.source_accuracy or 0.0], [_score(trial, metric) or 0.0]
            (point,) = axes.plot(*where, linestyle="", gid=tip, clip_on=False, zorder=3, **style)
            handles.setdefault(label, point)
        axes.set(xlabel="source accuracy", ylabel=_axis_label(metric))
        percent_axis(axes.xaxis)
        score_axis(axes.yaxis, metric)
        return handles

    return render_svg("source", f"Validation {metric.label} against source accuracy", 3.2, draw)


def finalists(record: StudyRecord) -> str | None:
    """Draws each finalist's mean with its 95 % interval and its single runs; None before the finals."""
    finals, metric = list(reversed(record.finals)), METRICS[record.config.metric]
    if not finals:
        return None

    def draw(axes: Axes) -> Handles:
        for row, final in enumerate(finals):
            is_default = final.settings == default_recipe_settings(record.config)
            color = BEST if final.name == record.recommended else DEFAULT if is_default else FULL
            _draw_finalist(axes, row, final, color, metric)
        axes.set_yticks(range(len(finals)), [truncated(final.name, _MAX_LABEL_LENGTH) for final in finals])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(-0.6, len(finals) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{_axis_label(metric)}: runs, mean, 95 % interval")
        score_axis(axes.xaxis, metric)
        return {}

    return render_svg("finals", "Finalists with their intervals", 0.8 + 0.42 * len(finals), draw)


def importance_bars(record: StudyRecord, max_rows: int = 12) -> str | None:
    """Draws the importance of the `max_rows` most important dimensions of the space; None without importances."""
    shares = {name: share for name, share in record.importance.items() if math.isfinite(share)}
    rows = sorted(shares.items(), key=lambda item: -item[1])[:max_rows][::-1]
    if not rows:
        return None

    bounds = [record.load_importance_bounds().get(name) for name, _ in rows]

    def draw(axes: Axes) -> Handles:
        values = [share for _, share in rows]
        axes.barh(range(len(rows)), values, color=FULL, height=0.62)
        for row, ends in enumerate(bounds):
            if ends is not None:
                axes.plot(ends, [row - 0.42] * 2, color=MUTED, linewidth=1.4, solid_capstyle="butt")
        axes.set_yticks(range(len(rows)), [truncated(name, _MAX_LABEL_LENGTH) for name, _ in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        for row, share in enumerate(values):
            axes.annotate(percent(share, 0), (share, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
        widest = max(1.18 * max(values), *(1.02 * ends[1] for ends in bounds if ends is not None), 0.0)
        axes.set(xlim=(0, widest), ylim=(-0.6, len(rows) - 0.4))
        axes.xaxis.set_visible(False)
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        return {}

    return render_svg("importance", "Importance of the settings", 0.3 + 0.3 * len(rows), draw)


def _draw_finalist(axes: Axes, row: int, final: FinalRecord, color: str, metric: Metric) -> None:
    runs = [run.score(metric.name) for run in final.runs]
    # The runs of a finalist are spread vertically over its row, so that equal ones stay visible.
    rows = [row - 0.24 + 0.12 * (i % 3) / 2 for i in range(len(runs))]
    axes.plot(runs, rows, linestyle="", marker="o", markersize=3.4, color=MUTED, alpha=0.55)
    validation = final.validation
    if validation.low is not None and validation.high is not None:
        axes.plot(
            [validation.low, validation.high], [row + 0.1] * 2, color=color, linewidth=2.4, solid_capstyle="round"
        )
    tip = tooltip_id(f"{final.name}: {score_text(validation.mean, metric)}")
    axes.plot(
        [validation.mean],
        [row + 0.1],
        linestyle="",
        marker="D",
        markersize=6,
        color=color,
        markeredgecolor=PAPER,
        gid=tip,
    )


def _axis_label(metric: Metric) -> str:
    return f"validation {metric.label}"


def _recommended_trial(record: StudyRecord) -> TrialRecord | None:
    recommendation = current_recommendation(record)
    return None if recommendation is None else recommendation.trial


def _score(trial: TrialRecord, metric: Metric) -> float | None:
    """Returns the score after the last epoch; None for diverged and failed trials."""
    score = trial.last_score(metric.name)
    if trial.diverged or trial.state == "failed" or score is None:
        return None
    return score if math.isfinite(score) else None


def _points(trial: TrialRecord, metric: Metric) -> list[tuple[int, float]]:
    return [
        (result.epoch, score)
        for result in trial.curve
        if (score := result.score(metric.name)) is not None and math.isfinite(score) and not result.diverged
    ]


def _ended_trials(record: StudyRecord) -> tuple[list[TrialRecord], list[float]]:
    """Returns the trials that ended, in this order, with what the study had then spent in default trials.

    Interrupted trials are left out, because another trial continues them.
    """
    ended = [trial for trial in record.trials if trial.end not in ("running", "interrupted")]
    ended.sort(key=lambda trial: (0.0 if trial.finished is None else trial.finished.timestamp(), trial.number))
    return ended, list(accumulate(trial.cost / record.config.epochs for trial in ended))


def _best_so_far(
    trials: Sequence[TrialRecord], spent: Sequence[float], metric: Metric
) -> tuple[list[float], list[float]]:
    """Returns the cost spent and the best full-length score up to each trial, from the first full-length one on."""
    costs: list[float] = []
    reached: list[float] = []
    for trial, cost in zip(trials, spent, strict=True):
        score = _score(trial, metric) if trial.state == "complete" else None
        if score is not None or reached:
            costs.append(cost)
            reached.append(max([*reached[-1:], *([] if score is None else [score])]))
    return costs, reached


def _line_style(
    trial: TrialRecord, best: TrialRecord | None, baseline: TrialRecord | None
) -> tuple[str, dict[str, Any]]:
    if trial is best:
        return f"trial {trial.number}, recommended", {"color": BEST, "linewidth": 2.4}
    if trial is baseline:
        return "default recipe", {"color": DEFAULT, "linewidth": 2.0, "linestyle": (0, (5, 2))}
    if trial.state == "complete" and not trial.diverged:
        return "full length", {"color": FULL, "linewidth": 1.1, "alpha": 0.75}
    return "stopped early", {"color": PRUNED, "linewidth": 1.0, "linestyle": (0, (2, 1.2))}


def _marker_style(
    trial: TrialRecord, best: TrialRecord | None, baseline: TrialRecord | None, metric: Metric
) -> tuple[str, dict[str, Any]]:
    if trial is best:
        return f"trial {trial.number}, recommended", {"color": BEST, "marker": "D", "markersize": 6.5, "mec": PAPER}
    if _score(trial, metric) is None:
        return "diverged or failed", {"color": PRUNED, "marker": "v", "markersize": 5.5}
    if trial is baseline:
        return "default recipe", {"color": DEFAULT, "marker": "s", "markersize": 5.5, "mec": PAPER}
    if trial.state == "complete":
        return "full length", {"color": FULL, "marker": "o", "markersize": 4.5}
    return "stopped early", {"color": PRUNED, "marker": "x", "markersize": 4.5}


def _describe(trial: TrialRecord, metric: Metric) -> str:
    state = "diverged" if trial.diverged else "full length" if trial.state == "complete" else trial.end
    return f"trial {trial.number}: {score_text(_score(trial, metric), metric)}, {state}"
