"""Plot of the forecasts of unpromising trials and of their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbt.metrics import METRICS, Metric
from nbt.report import svg
from nbt.report.formatting import score_text
from nbt.report.priors.pruning import CONTROL, EXEMPT, STOPPED, Forecast, PruningDecision, pruning_results
from nbt.report.svg import MAX_DRAWN, evenly_spaced
from nbt.tuning.storage.records import StudyRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_LABELS = 12


def unpromising_trials(record: StudyRecord) -> str | None:
    """Draws the 80 % interval of each unpromising trial and the accuracy to beat; None without such trials.

    Intervals of stopped trials are dotted. Intervals of trials that continued are solid, with a diamond at the outcome.
    A short horizontal line is the accuracy to beat. Of very many trials, evenly spaced ones are drawn.
    """
    metric = METRICS[record.config.metric]
    shown = [(trial, trial.forecast) for trial in pruning_results(record).decisions if trial.forecast is not None]
    if not shown:
        return None
    shown = list(evenly_spaced(shown, MAX_DRAWN // 2))

    def draw(axes: Axes) -> dict[str, Any]:
        handles: dict[str, Any] = {}
        for position, (trial, forecast) in enumerate(shown):
            _draw_trial(axes, position, trial, forecast, handles, metric)
        step = -(-len(shown) // _MAX_LABELS)
        axes.set_xticks(range(0, len(shown), step), [str(trial.number) for trial, _ in shown[::step]])
        axes.set_xlim(-0.7, len(shown) - 0.3)
        axes.set(xlabel="trial", ylabel=f"validation {metric.label}")
        axes.grid(visible=False, axis="x")
        svg.score_axis(axes.yaxis, metric)
        return handles

    return svg.render_svg("forecasts", "Forecasts of the unpromising trials", 3.2, draw)


_STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    STOPPED: ("stopped: 80 % interval", {"color": svg.PRUNED, "linewidth": 1.8, "linestyle": (0, (2, 1.2))}),
    CONTROL: ("control, not stopped", {"color": svg.FULL, "linewidth": 2.2}),
    EXEMPT: ("baseline recipe", {"color": svg.DEFAULT, "linewidth": 2.2, "linestyle": (0, (5, 2))}),
}


def _draw_trial(
    axes: Axes, position: int, trial: PruningDecision, forecast: Forecast, handles: dict[str, Any], metric: Metric
) -> None:
    row, (label, style) = forecast.deciding, _STYLES[trial.decision]
    tip = svg.tooltip_id(_describe(trial, forecast, metric))
    (line,) = axes.plot([position, position], [row.low, row.high], gid=tip, **style)
    handles.setdefault(label, line)
    axes.plot([position], [row.mean], marker="o", markersize=3.6, color=style["color"], linestyle="")
    if forecast.incumbent is not None:
        across = [position - 0.3, position + 0.3]
        (bar,) = axes.plot(across, [forecast.incumbent] * 2, color=svg.BEST, linewidth=1.8)
        handles.setdefault(f"{metric.label} to beat", bar)
    if trial.outcome is not None:
        (end,) = axes.plot([position], [trial.outcome], marker="D", markersize=6, color=svg.INK, mec=svg.PAPER, ls="")
        handles.setdefault(f"{metric.label} reached", end)


def _describe(trial: PruningDecision, forecast: Forecast, metric: Metric) -> str:
    row = forecast.deciding
    reached = "" if trial.outcome is None else f", reached {score_text(trial.outcome, metric)}"
    return (
        f"trial {trial.number}, {trial.decision}: forecast {score_text(row.mean, metric)} after epoch {row.epoch}, "
        f"to beat {score_text(forecast.incumbent, metric)}{reached}"
    )
