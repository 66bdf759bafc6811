"""Formatting of numbers for people: percent, points, intervals, durations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace

from nbt.metrics import Metric
from nbt.tuning.intervals import Interval, value_interval
from nbt.tuning.storage.records import PRIOR_ORIGIN_PREFIX

MINUS = "\N{MINUS SIGN}"
EN_DASH = "\N{EN DASH}"
DASH = EN_DASH
"""Placeholder for a missing number."""


def percent(value: float | None, digits: int = 1) -> str:
    """Returns a share 0 ... 1 as percent, e.g. "84.2 %"."""
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def points(value: float, *, signed: bool = True) -> str:
    """Returns a difference of shares in percentage points, e.g. "+3.1", or "3.1" where `signed` is False."""
    rounded = round(100 * value, 1)
    sign = MINUS if rounded < 0 else "+"
    return f"{sign if signed else ''}{abs(rounded):.1f}"


def signed_number(value: float | None) -> str:
    """Returns a number with its sign and two decimals, e.g. "+0.35", or a dash for None."""
    if value is None:
        return DASH
    rounded = round(value, 2)
    return f"{MINUS if rounded < 0 else '+'}{abs(rounded):.2f}"


def score_text(score: float | None, metric: Metric) -> str:
    """Returns the value of a metric with its unit from its score, e.g. "84.2 %" or "0.830 nats"."""
    value = None if score is None else metric.value(score)
    return percent(value) if value is None or metric.is_share else f"{format_loss(value)} {metric.unit}"


def score_interval(interval: Interval, metric: Metric) -> str:
    """Returns the bounds of an interval of scores in the metric's unit, the lower value first, or a dash without."""
    if metric.is_share or interval.low is None or interval.high is None:
        return format_interval(interval)
    values = value_interval(interval, metric)
    return f"{format_loss(values.low)}{EN_DASH}{format_loss(values.high)} {metric.unit}"


def difference_number(difference: float, metric: Metric, reference: float, *, signed: bool = True) -> str:
    """Returns a difference of scores as one of values, in `Metric.difference_unit`, e.g. "+3.1" or "+0.120".

    Args:
        difference: Difference in score.
        metric: The metric.
        reference: Score from which it differs.
        signed: Whether the number has a sign.
    """
    if metric.is_share:
        return points(difference, signed=signed)
    rounded = round(metric.difference(difference, reference), 3)
    sign = MINUS if rounded < 0 else "+"
    return f"{sign if signed else ''}{abs(rounded):.3f}"


def difference_interval(interval: Interval, metric: Metric, reference: float) -> str:
    """Returns the bounds of a difference of scores as those of values, the lower first, e.g. "+1.2 to +5.0"."""
    if interval.low is None or interval.high is None:
        return DASH
    bounds = [difference_number(bound, metric, reference) for bound in (interval.low, interval.high)]
    return " to ".join(bounds if metric.higher_is_better else reversed(bounds))


def format_interval(interval: Interval) -> str:
    """Returns the bounds of an interval of shares in percent, clipped to 0 ... 100, or a dash without bounds."""
    if interval.low is None or interval.high is None:
        return DASH
    # Student's interval may leave the range of shares.
    return f"{100 * max(interval.low, 0.0):.1f}{EN_DASH}{100 * min(interval.high, 1.0):.1f} %"


def points_interval(interval: Interval) -> str:
    """Returns the bounds of a difference in points, e.g. "+1.2 to +5.0", or a dash without bounds."""
    if interval.low is None or interval.high is None:
        return DASH
    return f"{points(interval.low)} to {points(interval.high)}"


def duration(seconds: float) -> str:
    """Returns a duration as "0.4 s", "42 s", "3 min 05 s" or "2 h 07 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def cost_text(cost: float, budget: int | None) -> str:
    """Formats what trials cost, relative to a trial of the default recipe, as in "cost 3.2 of 20 trials"."""
    return f"cost {cost:.1f} trials" if budget is None else f"cost {cost:.1f} of {budget} trials"


def format_number(value: float | int | str | None) -> str:
    """Returns a setting or a fact as text: three significant digits for floats, a dash for None and infinite values."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return str(value).lower()  # as in a settings file
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return DASH
    text = re.sub(r"e\+?(-?)0*", r"e\1", f"{value + 0.0:.3g}")
    return MINUS + text[1:] if text.startswith("-") else text


def format_loss(value: float | None) -> str:
    """Returns a loss in nats with three decimals, or a dash."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.3f}"


def format_timestamp(value: datetime | None) -> str:
    """Returns a UTC time as "2026-03-01 09:30 UTC", or a dash."""
    return DASH if value is None else value.strftime("%Y-%m-%d %H:%M UTC")


def pluralise(count: int, word: str, words: str | None = None) -> str:
    """Returns a count with its noun: "1 trial", "3 trials"; `words` is an irregular plural."""
    return f"{count} {word if count == 1 else words or word + 's'}"


def one_line(text: str) -> str:
    """Returns the text without control characters and line breaks, for a comment or a table cell."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def truncated(text: str, max_length: int) -> str:
    """Returns the text in one line of at most `max_length` characters, shortened with an ellipsis."""
    line = one_line(text)
    return line if len(line) <= max_length else line[: max_length - 1] + "…"


_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float | None], low: float, high: float, width: int = 12) -> str:
    """Returns a row of block characters, one per value; longer rows are thinned to `width` and keep the last value.

    Args:
        values: The values; None and non-finite values become a space.
        low: Value of the lowest block.
        high: Value of the highest block.
        width: Maximum number of characters.
    """
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    top = len(_BLOCKS) - 1
    scale = top / (high - low) if high > low else 0.0
    shown = (None if v is None or not math.isfinite(v) else min(max(round((v - low) * scale), 0), top) for v in values)
    return "".join(" " if level is None else _BLOCKS[level] for level in shown)


def origin_text(origin: str) -> str:
    """Returns the stored origin of a trial for people.

    Stored origins of baseline recipes begin with "anchor: ", those of settings that run after these, before the
    sampler proposes any, with "recommended: ", which for people is the result of a search.
    """
    for prefix, shown in (("anchor: ", "baseline: "), (PRIOR_ORIGIN_PREFIX, "initial settings: ")):
        if origin.startswith(prefix):
            return one_line(shown + origin.removeprefix(prefix))
    return one_line(origin)


def join_words(items: Sequence[str]) -> str:
    """Returns the items as an English list: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


TemplateData = SimpleNamespace
"""Values that only templates read, such as the cells of a row; the function that returns them names them."""


@dataclass(frozen=True)
class Fact:
    """A labelled value with a remark."""

    label: str
    value: str
    note: str = ""
