"""Plots: a study as drawings, SVG text to put into a page.

Colours are roles (ink, grid, best ...) that the page's style sheet fills in, so one drawing serves a light and a dark
page; the sheet takes them from Okabe and Ito's palette, which colour-blind readers can tell apart, and shapes and
dashes say the same a second time. Drawings are as wide as a phone, so that their letters stay readable there.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nbt.report.choice import current_recommendation, default_pretrain_settings, default_recipe_trial
from nbt.report.numbers import one_line, percent, truncated
from nbt.search.records import FinalRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Handles = list[Any]

_ROLES = {
    "#010101": "ink",
    "#020202": "muted",
    "#030303": "grid",
    "#040404": "best",
    "#050505": "full",
    "#060606": "pruned",
    "#070707": "default",
    "#080808": "paper",
}
INK, MUTED, GRID, BEST, FULL, PRUNED, DEFAULT, PAPER = _ROLES
_WIDTH = 4.6
_MAX_LABEL_LENGTH = 26
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.transparent": True,
    "text.parse_math": False,
}


def learning_curves(record: StudyRecord) -> str | None:
    """Draws validation accuracy by epoch, one line a trial; None where no trial has an epoch to show.

    Pruned and failed trials are thin and dotted and end in a cross, full-length ones are solid, the chosen one and the
    default recipe are thick.
    """
    shown = [trial for trial in record.trials if _points(trial)]
    if not shown:
        return None
    best, baseline = _recommended_trial(record), default_recipe_trial(record)

    def draw(axes: Axes) -> Handles:
        handles: dict[str, Any] = {}
        for trial in sorted(shown, key=lambda trial: (trial is best, trial is baseline, trial.state == "complete")):
            label, style = _line_style(trial, best, baseline)
            epochs, accuracies = zip(*_points(trial), strict=True)
            (line,) = axes.plot(epochs, accuracies, gid=tooltip_id(_describe(trial)), **style)
            if trial.state != "complete":
                axes.plot(epochs[-1:], accuracies[-1:], marker="x", markersize=4, color=style["color"], linestyle="")
            handles.setdefault(label, line)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy")
        integer_axis(axes.xaxis)
        axes.set_xlim(left=min(1, *(trial.curve[0].epoch for trial in shown)) - 0.2)
        percent_axis(axes.yaxis)
        return _legend(handles)

    return drawing("curves", "Learning curves of all trials", 3.2, draw)


def accuracy_by_trial(record: StudyRecord) -> str | None:
    """Draws each trial's accuracy by its number, the best so far and its standard error; None without accuracies.

    The range is that of the full-length trials; pruned ones below it, diverged and failed ones stand on its lower
    edge. An interrupted trial is left out: another goes on with it.
    """
    trials = [trial for trial in record.trials if trial.end not in ("running", "interrupted")]
    measured = [trial for trial in trials if _accuracy(trial) is not None]
    if not measured:
        return None
    ranged = [_accuracy(trial) or 0.0 for trial in [t for t in measured if t.state == "complete"] or measured]
    floor = max(0.0, min(ranged) - 0.1 * max(max(ranged) - min(ranged), 0.05))
    best, baseline = _recommended_trial(record), default_recipe_trial(record)

    def draw(axes: Axes) -> Handles:
        handles: dict[str, Any] = {}
        numbers, reached = _best_so_far(trials)
        if numbers:
            (handles["best so far"],) = axes.step(numbers, reached, where="post", color=BEST, linewidth=1.6)
            if record.noise is not None:
                lower = [max(value - record.noise, 0.0) for value in reached]
                upper = [min(value + record.noise, 1.0) for value in reached]
                band = axes.fill_between(numbers, lower, upper, step="post", color=BEST, alpha=0.15, linewidth=0)
                handles["± 1 standard error"] = band
        for trial in trials:
            label, style = _marker_style(trial, best, baseline)
            accuracy = _accuracy(trial)
            where = floor if accuracy is None else max(accuracy, floor)
            tip = tooltip_id(_describe(trial))
            (point,) = axes.plot([trial.number], [where], linestyle="", gid=tip, clip_on=False, zorder=3, **style)
            handles.setdefault(label, point)
        axes.set_xlabel("trial")
        axes.set_ylabel("validation accuracy")
        integer_axis(axes.xaxis)
        axes.set_ylim(bottom=floor)
        percent_axis(axes.yaxis)
        return _legend(handles)

    return drawing("trials", "Validation accuracy of each trial", 3.2, draw)


def finalists(record: StudyRecord) -> str | None:
    """Draws each finalist's mean with its 95 % interval and its single runs; None before the finals."""
    finals = list(reversed(record.finals))
    if not finals:
        return None

    def draw(axes: Axes) -> Handles:
        for row, final in enumerate(finals):
            is_default = final.settings == default_pretrain_settings(record.config)
            color = BEST if final.name == record.recommended else DEFAULT if is_default else FULL
            _draw_finalist(axes, row, final, color)
        axes.set_yticks(range(len(finals)), [truncated(final.name, _MAX_LABEL_LENGTH) for final in finals])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(-0.6, len(finals) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("validation accuracy: runs, mean, 95 % interval")
        percent_axis(axes.xaxis)
        return []

    return drawing("finals", "Finalists with their intervals", 0.8 + 0.42 * len(finals), draw)


def importance_bars(record: StudyRecord, most: int = 12) -> str | None:
    """Draws the share of each dimension, largest first, at most `most`; None where there is none to show."""
    shares = {name: share for name, share in record.importance.items() if math.isfinite(share)}
    rows = sorted(shares.items(), key=lambda item: -item[1])[:most][::-1]
    if not rows:
        return None

    def draw(axes: Axes) -> Handles:
        values = [share for _, share in rows]
        axes.barh(range(len(rows)), values, color=FULL, height=0.62)
        axes.set_yticks(range(len(rows)), [truncated(name, _MAX_LABEL_LENGTH) for name, _ in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        for row, share in enumerate(values):
            axes.annotate(
                percent(share, 0), (share, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        axes.set_xlim(0, max(values) * 1.18)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.xaxis.set_visible(False)
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        return []

    return drawing("importance", "Importance of the settings", 0.3 + 0.3 * len(rows), draw)


def _draw_finalist(axes: Axes, row: int, final: FinalRecord, color: str) -> None:
    runs = [run.val_accuracy for run in final.runs]
    # The runs of a finalist are spread over a third of its row, so that equal ones stay visible.
    rows = [row - 0.24 + 0.12 * (i % 3) / 2 for i in range(len(runs))]
    axes.plot(runs, rows, linestyle="", marker="o", markersize=3.4, color=MUTED, alpha=0.55)
    validation = final.validation
    if validation.low is not None and validation.high is not None:
        axes.plot(
            [validation.low, validation.high], [row + 0.1] * 2, color=color, linewidth=2.4, solid_capstyle="round"
        )
    tip = tooltip_id(f"{final.name}: {percent(validation.mean)}")
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


def _recommended_trial(record: StudyRecord) -> TrialRecord | None:
    choice = current_recommendation(record)
    return None if choice is None else choice.trial


def _accuracy(trial: TrialRecord) -> float | None:
    """Returns the accuracy to draw; None of a diverged or failed trial, which has none that means anything."""
    if trial.diverged or trial.state == "failed" or trial.val_accuracy is None:
        return None
    return trial.val_accuracy if math.isfinite(trial.val_accuracy) else None


def _points(trial: TrialRecord) -> list[tuple[int, float]]:
    return [
        (result.epoch, result.val_accuracy)
        for result in trial.curve
        if result.val_accuracy is not None and math.isfinite(result.val_accuracy) and not result.diverged
    ]


def _best_so_far(trials: Sequence[TrialRecord]) -> tuple[list[int], list[float]]:
    """Returns the numbers of trials and the best full-length accuracy up to each, from the first that has one."""
    numbers: list[int] = []
    reached: list[float] = []
    for trial in trials:
        accuracy = _accuracy(trial) if trial.state == "complete" else None
        if accuracy is not None or reached:
            numbers.append(trial.number)
            reached.append(max([*reached[-1:], *([] if accuracy is None else [accuracy])]))
    return numbers, reached


def _line_style(
    trial: TrialRecord, best: TrialRecord | None, baseline: TrialRecord | None
) -> tuple[str, dict[str, Any]]:
    if trial is best:
        return f"trial {trial.number}, chosen", {"color": BEST, "linewidth": 2.4}
    if trial is baseline:
        return "default recipe", {"color": DEFAULT, "linewidth": 2.0, "linestyle": (0, (5, 2))}
    if trial.state == "complete" and not trial.diverged:
        return "full length", {"color": FULL, "linewidth": 1.1, "alpha": 0.75}
    return "stopped early", {"color": PRUNED, "linewidth": 1.0, "linestyle": (0, (2, 1.2))}


def _marker_style(
    trial: TrialRecord, best: TrialRecord | None, baseline: TrialRecord | None
) -> tuple[str, dict[str, Any]]:
    if trial is best:
        return f"trial {trial.number}, chosen", {"color": BEST, "marker": "D", "markersize": 6.5, "mec": PAPER}
    if _accuracy(trial) is None:
        return "diverged or failed", {"color": PRUNED, "marker": "v", "markersize": 5.5}
    if trial is baseline:
        return "default recipe", {"color": DEFAULT, "marker": "s", "markersize": 5.5, "mec": PAPER}
    if trial.state == "complete":
        return "full length", {"color": FULL, "marker": "o", "markersize": 4.5}
    return "stopped early", {"color": PRUNED, "marker": "x", "markersize": 4.5}


def _describe(trial: TrialRecord) -> str:
    state = "diverged" if trial.diverged else "full length" if trial.state == "complete" else trial.end
    return f"trial {trial.number}: {percent(_accuracy(trial))}, {state}"


def percent_axis(axis: Any) -> None:
    """Writes the shares along an axis as percents."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axis.get_major_locator().set_params(nbins=6)


def integer_axis(axis: Any) -> None:
    """Marks whole numbers alone along an axis."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _legend(handles: dict[str, Any]) -> Handles:
    for label, handle in handles.items():
        handle.set_label(label)
    return list(handles.values())


def drawing(name: str, title: str, height: float, draw: Callable[[Axes], Handles]) -> str:
    """Returns a drawing as SVG.

    Args:
        name: Unique in a page: identifiers in the drawing are derived from it.
        title: What is drawn, for readers who cannot see it.
        height: Inches; the width is the same for all.
        draw: Draws and returns what goes into the legend.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        handles = draw(figure.add_subplot())
        if handles:
            figure.legend(handles=handles, loc="outside upper left", ncols=3)
        return _to_svg(figure, title)


def _to_svg(figure: Figure, title: str) -> str:
    """Returns the figure's SVG, made ready to stand in a page: no prolog, roles for colours, tips, no fixed size."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>\s*", "", text, flags=re.S)
    text = re.sub(r'<g id="tip:([^"]*)">', lambda m: f"<g><title>{_decode_tip(m[1])}</title>", text)
    text = re.sub(r'(<g) id="[A-Za-z]+[_0-9.]*[^"]*"', r"\1", text)
    # The page's own letters; matplotlib writes the family by itself or, in older versions, behind the size.
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for color, role in _ROLES.items():
        text = text.replace(color, f"var(--{role})")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib writes a viewBox"
    return f'<svg {box[0]} role="img" aria-label="{title}" xmlns:xlink="http://www.w3.org/1999/xlink">' + (
        text[text.index(">", text.index("<svg")) + 1 :].strip()
    )


def tooltip_id(text: str) -> str:
    """Returns a group identifier that carries a tip through matplotlib, which writes it as an attribute."""
    return "tip:" + one_line(text).encode("utf-8").hex()


def _decode_tip(code: str) -> str:
    from xml.sax.saxutils import escape

    return escape(bytes.fromhex(code).decode("utf-8"))
