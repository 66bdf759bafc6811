"""Charts of the ridge probe by unit: two columns per unit on a terminal, one line of text per unit elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from nbt.fit.fit_profile import FitProfile
from nbt.report.fit.measures import accuracy_text, has_random_weights, images, knee_unit_count, weights_names
from nbt.report.formatting import one_line, percent, truncated

HEIGHT = 8
"""Number of rows of a chart; a row has eight steps."""

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LEFT_MARGIN = 6  # "100 % "
_UNIT_WIDTH = 3  # two columns and a gap
_BAR_WIDTH = 30
_MAX_NAME_LENGTH = 24
_PRETRAINED, _RANDOM = "green", "yellow"


def draw_columns(profile: FitProfile, width: int) -> list[Text]:
    """Returns the ridge probe by unit as columns, for pretrained (green) and random weights (yellow).

    Args:
        profile: A profile with at least one unit.
        width: Width of the terminal in characters; if not all units fit, evenly spaced ones are shown.
    """
    pretrained, random = curves(profile)
    n_units, knee = len(pretrained), knee_unit_count(profile)
    shown = evenly_spaced(n_units, max(1, (width - _LEFT_MARGIN - 1) // _UNIT_WIDTH), keep=(knee or n_units) - 1)
    top = axis_maximum([*pretrained, *random])
    rows = []
    for row in reversed(range(HEIGHT)):
        text = Text(f"{_tick_label(row, top):>{_LEFT_MARGIN}}", style="dim")
        for unit in shown:
            text.append(" ")
            text.append(column_character(pretrained[unit], top, row), style=_PRETRAINED)
            text.append(column_character(random[unit], top, row), style=_RANDOM)
        rows.append(text)
    return [*rows, *_axis_and_legend(shown, knee, n_units, weights_names(profile))]


def draw_bars(profile: FitProfile) -> list[str]:
    """Returns the ridge probe by unit as lines of text: # for random weights, = for the gain of the measured ones."""
    pretrained, random = curves(profile)
    knee, n = knee_unit_count(profile), images(profile)
    units = [truncated(one_line(str(unit)), _MAX_NAME_LENGTH) for unit in profile.layers["unit"]]
    name_width = max(map(len, ["unit", *units]))
    top = axis_maximum([*pretrained, *random])
    heads = ("measured", "other random") if has_random_weights(profile) else ("pretrained", "random")
    lines = [f"{'unit':<{name_width}}  {heads[0]:>13}  {heads[1]:>13}"]
    for i, unit in enumerate(units):
        bar = bar_text(pretrained[i], random[i], top)
        mark = "  <- knee" if knee == i + 1 else ""
        accuracies = f"{_accuracy(pretrained[i], n):>13}  {_accuracy(random[i], n):>13}"
        lines.append(f"{unit:<{name_width}}  {accuracies}  {bar}{mark}")
    return lines


def curves(profile: FitProfile) -> tuple[list[float], list[float]]:
    """Returns the ridge accuracy of every unit with pretrained and with random weights, 0 ... 1 or NaN."""
    pretrained, random = (profile.layers[name] for name in ("ridge_accuracy", "ridge_accuracy_random"))
    return [float(value) for value in pretrained], [float(value) for value in random]


def axis_maximum(values: Sequence[float]) -> float:
    """Returns the maximum of the axis: the next multiple of .1 above all finite values, .1 ... 1."""
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    return min(1.0, max(0.1, math.ceil(10 * highest - 1e-9) / 10))


def column_character(value: float, top: float, row: int) -> str:
    """Returns the character of a column in one row.

    Args:
        value: Value of the column; NaN is shown as "?", and a value above 0 fills at least one step.
        top: Maximum of the axis.
        row: Number of the row, from 0 at the bottom.
    """
    if not math.isfinite(value):
        return "?" if row == 0 else " "
    steps = round(8 * HEIGHT * value / top)
    if value > 0:
        steps = max(1, steps)
    return _EIGHTHS[min(8, max(0, steps - 8 * row))]


def bar_text(pretrained: float, random: float, top: float) -> str:
    """Returns the two accuracies of a unit as one bar of ASCII characters.

    Args:
        pretrained: Accuracy with pretrained weights; if it is below `random`, a | marks it in the bar.
        random: Accuracy with random weights.
        top: Accuracy of a full bar.
    """
    if not (math.isfinite(pretrained) and math.isfinite(random)):
        return ""
    pretrained_length, random_length = (round(_BAR_WIDTH * value / top) for value in (pretrained, random))
    if pretrained_length >= random_length:
        return "#" * random_length + "=" * (pretrained_length - random_length)
    return "#" * pretrained_length + "|" + "#" * (random_length - pretrained_length - 1)


def evenly_spaced(count: int, limit: int, keep: int) -> list[int]:
    """Returns at most `limit` evenly spaced numbers out of 0 ... count - 1.

    Args:
        count: Number of units.
        limit: Maximum length of the result; if it is 1, the result is the last number.
        keep: A number that the result contains besides the last one.
    """
    if count <= limit:
        return list(range(count))
    if limit == 1:
        return [count - 1]
    chosen = [round(i * (count - 1) / (limit - 1)) for i in range(limit)]
    nearest = min(range(limit - 1), key=lambda i: abs(chosen[i] - keep))
    if keep not in chosen:
        chosen[nearest] = keep
    return sorted(set(chosen))


def _axis_and_legend(shown: Sequence[int], knee: int | None, units: int, weights: tuple[str, str]) -> list[Text]:
    """Returns the axis, the mark of the knee below it, and the legend with the names of the two kinds of weights."""
    axis = Text(" " * _LEFT_MARGIN + "─" * (_UNIT_WIDTH * len(shown) + 1), style="dim")
    caption = Text(" " * (_LEFT_MARGIN + 1))
    caption.append(f"█ {weights[0].removesuffix(' weights')}", style=_PRETRAINED)
    caption.append("  ")
    caption.append(f"█ {weights[1]}", style=_RANDOM)
    selection = "" if len(shown) == units else f", {len(shown)} of {units} units shown"
    caption.append(f"  one pair per unit, from the input on{selection}", style="dim")
    if not knee:
        return [axis, caption]
    at = _LEFT_MARGIN + 1 + _UNIT_WIDTH * shown.index(knee - 1) if knee - 1 in shown else None
    if at is None:
        return [axis, caption]
    label = f"knee: unit {knee} of {units}"
    # The label is placed on the side that has enough room.
    line = f"{' ' * at}▲ {label}" if at < len(label) + 2 else f"{label + ' ▲':>{at + 1}}"
    return [axis, Text(line), caption]


def _tick_label(row: int, top: float) -> str:
    return f"{percent(top * (row + 1) / HEIGHT, 0)} " if row in (HEIGHT - 1, HEIGHT // 2 - 1) else ""


def _accuracy(value: float, n: int) -> str:
    return accuracy_text(value, n) if math.isfinite(value) else "-"
