"""Values of metrics and their intervals as text: shares in percent, log loss in nats."""

from __future__ import annotations

from nbt.metrics import METRICS
from nbt.report.formatting import DASH, EN_DASH, MINUS, percent, points
from nbt.tuning.intervals import Interval


def is_share(metric: str) -> bool:
    """Returns whether the values of a metric are shares, 0 ... 1."""
    return METRICS[metric].is_share


def value_text(metric: str, value: float | None) -> str:
    """Returns a value, e.g. "84.2 %" or "0.412 nats"; a dash for None."""
    if is_share(metric) or value is None:
        return percent(value)
    return f"{value:.3f} nats"


def bounds_text(metric: str, interval: Interval) -> str:
    """Returns the bounds of an interval, e.g. "81.0-87.3 %" or "0.380-0.447 nats"; a dash without bounds."""
    if interval.low is None or interval.high is None:
        return DASH
    if is_share(metric):
        return f"{100 * interval.low:.1f}{EN_DASH}{100 * interval.high:.1f} %"
    return f"{interval.low:.3f}{EN_DASH}{interval.high:.3f} nats"


def difference_text(metric: str, value: float, *, unit: bool = True) -> str:
    """Returns a signed difference of values, e.g. "+1.3 points" or "-0.021 nats"."""
    if is_share(metric):
        return f"{points(value)} points" if unit else points(value)
    text = f"{MINUS if value < 0 else '+'}{abs(value):.3f}"
    return f"{text} nats" if unit else text


def difference_bounds_text(metric: str, interval: Interval) -> str:
    """Returns the bounds of a difference, e.g. "-0.4 to +3.0"; a dash without bounds."""
    if interval.low is None or interval.high is None:
        return DASH
    return " to ".join(difference_text(metric, bound, unit=False) for bound in (interval.low, interval.high))


def guess_text(metric: str) -> str:
    """Returns what the result of always guessing is of, for a sentence."""
    if metric in ("auroc", "log_loss"):
        return "guessing by the class frequencies"
    return "always guessing the largest class"


def interval_text(interval: Interval, *, signed: bool = False) -> str:
    """Formats a mean share with its interval, as in "84.1 %  [82.9, 85.3]"."""
    mean = f"{100 * interval.mean:{'+' if signed else ''}.1f} %"
    if interval.low is None or interval.high is None:
        return mean
    sign = "+" if signed else ""
    return f"{mean}  [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"


def metric_interval_text(metric: str, interval: Interval, *, signed: bool = False) -> str:
    """Formats a value of a metric, or a signed difference, with its interval, as in "84.1 %  [82.9, 85.3]"."""
    if is_share(metric):
        text = interval_text(interval, signed=signed)
        return text.replace(" %", " points") if signed else text
    sign = "+" if signed else ""
    mean = f"{interval.mean:{sign}.3f} nats"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean}  [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
