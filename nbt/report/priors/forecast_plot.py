"""Plot of forecasts: what was expected of the trials that were found hopeless, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbt.report import svg
from nbt.report.formatting import percent
from nbt.report.priors.pruning import CONTROL, EXEMPT, STOPPED, Forecast, PruningDecision, pruning
from nbt.tuning.storage.records import StudyRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_LABELS = 12


def unpromising_trials(record: StudyRecord) -> str | None:
    """Draws the 80 % interval of each trial that was found hopeless, against the accuracy to beat; None without any.

    Intervals of stopped trials are dotted, those of trials that ran on solid and with a diamond at the outcome; a short
    line across is the accuracy to beat.
    """
    shown = [(one, one.forecast) for one in pruning(record).decisions if one.forecast is not None]
    if not shown:
        return None

    def draw(axes: Axes) -> list[Any]:
        handles: dict[str, Any] = {}
        for place, (one, forecast) in enumerate(shown):
            _draw_trial(axes, place, one, forecast, handles)
        every = -(-len(shown) // _MAX_LABELS)
        axes.set_xticks(range(0, len(shown), every), [str(one.number) for one, _ in shown[::every]])
        axes.set_xlim(-0.7, len(shown) - 0.3)
        axes.set_xlabel("trial")
        axes.set_ylabel("validation accuracy")
        axes.grid(visible=False, axis="x")
        svg.percent_axis(axes.yaxis)
        for label, handle in handles.items():
            handle.set_label(label)
        return list(handles.values())

    return svg.drawing("forecasts", "Forecasts of the trials that were found hopeless", 3.2, draw)


_STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    STOPPED: ("stopped: 80 % interval", {"color": svg.PRUNED, "linewidth": 1.8, "linestyle": (0, (2, 1.2))}),
    CONTROL: ("ran on as a control", {"color": svg.FULL, "linewidth": 2.2}),
    EXEMPT: ("first recipe, ran on", {"color": svg.DEFAULT, "linewidth": 2.2, "linestyle": (0, (5, 2))}),
}


def _draw_trial(axes: Axes, place: int, one: PruningDecision, forecast: Forecast, handles: dict[str, Any]) -> None:
    row, (label, look) = forecast.deciding, _STYLES[one.decision]
    tip = svg.tooltip_id(_describe(one, forecast))
    (line,) = axes.plot([place, place], [row.low, row.high], gid=tip, **look)
    handles.setdefault(label, line)
    axes.plot([place], [row.mean], marker="o", markersize=3.6, color=look["color"], linestyle="")
    if forecast.incumbent is not None:
        across = [place - 0.3, place + 0.3]
        (bar,) = axes.plot(across, [forecast.incumbent] * 2, color=svg.BEST, linewidth=1.8)
        handles.setdefault("accuracy to beat", bar)
    if one.outcome is not None:
        (end,) = axes.plot([place], [one.outcome], marker="D", markersize=6, color=svg.INK, mec=svg.PAPER, ls="")
        handles.setdefault("what it reached", end)


def _describe(one: PruningDecision, forecast: Forecast) -> str:
    row = forecast.deciding
    reached = "" if one.outcome is None else f", reached {percent(one.outcome)}"
    return (
        f"trial {one.number}, {one.decision}: forecast {percent(row.mean)} after epoch {row.epoch}, to beat "
        f"{percent(forecast.incumbent)}{reached}"
    )
