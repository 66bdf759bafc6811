"""A fit profile's curve drawn on a terminal: a pair of columns a unit, or a line a unit where there is no terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbt.report.fit.text import accuracy_text, images, knee_unit_count
from nbt.report.formatting import one_line, percent, truncated

if TYPE_CHECKING:
    from rich.text import Text

    from nbt.fit.fit_profile import FitProfile

HEIGHT = 8
"""Rows of a drawing, each of eight steps."""

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LEFT_MARGIN = 6  # "100 % "
_UNIT_WIDTH = 3  # Two columns and a gap.
_BAR_WIDTH = 30
_MAX_NAME_LENGTH = 24
_PRETRAINED, _RANDOM = "green", "yellow"


def draw_columns(profile: FitProfile, width: int) -> list[Text]:
    """Returns the ridge probes by unit as columns: pretrained (green) beside random weights (yellow).

    Args:
        profile: With at least one unit.
        width: Of the terminal in characters; of more units than fit, evenly spread ones are shown.
    """
    from rich.text import Text

    own, other = curves(profile)
    knee = knee_unit_count(profile)
    shown = spread(len(own), max(1, (width - _LEFT_MARGIN - 1) // _UNIT_WIDTH), keep=(knee or len(own)) - 1)
    top = axis_maximum([*own, *other])
    rows = []
    for row in reversed(range(HEIGHT)):
        text = Text(f"{_tick_label(row, top):>{_LEFT_MARGIN}}", style="dim")
        for unit in shown:
            text.append(" ")
            text.append(column_character(own[unit], top, row), style=_PRETRAINED)
            text.append(column_character(other[unit], top, row), style=_RANDOM)
        rows.append(text)
    return [*rows, *_axis_and_legend(shown, knee, len(own))]


def draw_bars(profile: FitProfile) -> list[str]:
    """Returns the ridge probes by unit as lines of plain text: # up to random weights, = what pretrained ones add."""
    own, other = curves(profile)
    knee, n = knee_unit_count(profile), images(profile)
    units = [truncated(one_line(str(unit)), _MAX_NAME_LENGTH) for unit in profile.layers["unit"]]
    wide = max(map(len, ["unit", *units]))
    top = axis_maximum([*own, *other])
    lines = [f"{'unit':<{wide}}  {'pretrained':>13}  {'random':>13}"]
    for i, unit in enumerate(units):
        bar = bar_text(own[i], other[i], top)
        mark = "  <- knee" if knee == i + 1 else ""
        lines.append(f"{unit:<{wide}}  {_accuracy(own[i], n):>13}  {_accuracy(other[i], n):>13}  {bar}{mark}")
    return lines


def curves(profile: FitProfile) -> tuple[list[float], list[float]]:
    """Returns the ridge probe of every unit at pretrained and at random weights, 0 ... 1 or NaN."""
    own, other = (profile.layers[name] for name in ("ridge_accuracy", "ridge_accuracy_random"))
    return [float(value) for value in own], [float(value) for value in other]


def axis_maximum(values: Sequence[float]) -> float:
    """Returns the top of the scale: the next tenth above all values, .1 at least."""
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    return min(1.0, max(0.1, math.ceil(10 * highest - 1e-9) / 10))


def column_character(value: float, top: float, row: int) -> str:
    """Returns the character of a column in a row, counted from below; a value above 0 shows in the lowest."""
    if not math.isfinite(value):
        return "?" if row == 0 else " "
    steps = round(8 * HEIGHT * value / top)
    if value > 0:
        steps = max(1, steps)
    return _EIGHTHS[min(8, max(0, steps - 8 * row))]


def bar_text(own: float, other: float, top: float) -> str:
    """Returns a bar of plain characters; where random weights are ahead, a | marks the pretrained ones in it."""
    if not (math.isfinite(own) and math.isfinite(other)):
        return ""
    mine, random = (round(_BAR_WIDTH * value / top) for value in (own, other))
    if mine >= random:
        return "#" * random + "=" * (mine - random)
    return "#" * mine + "|" + "#" * (random - mine - 1)


def spread(count: int, most: int, keep: int) -> list[int]:
    """Returns at most `most` of 0 ... count - 1, evenly spread, the last and `keep` among them (the last, if one)."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    chosen = [round(i * (count - 1) / (most - 1)) for i in range(most)]
    nearest = min(range(most - 1), key=lambda i: abs(chosen[i] - keep))
    if keep not in chosen:
        chosen[nearest] = keep
    return sorted(set(chosen))


def _axis_and_legend(shown: Sequence[int], knee: int | None, units: int) -> list[Text]:
    """Returns the axis, the mark of the knee below it, and what the columns are."""
    from rich.text import Text

    axis = Text(" " * _LEFT_MARGIN + "─" * (_UNIT_WIDTH * len(shown) + 1), style="dim")
    caption = Text(" " * (_LEFT_MARGIN + 1))
    caption.append("█ pretrained", style=_PRETRAINED)
    caption.append("  ")
    caption.append("█ random weights", style=_RANDOM)
    few = "" if len(shown) == units else f", {len(shown)} of {units} shown"
    caption.append(f"  a pair a unit, from the input{few}", style="dim")
    if not knee:
        return [axis, caption]
    at = _LEFT_MARGIN + 1 + _UNIT_WIDTH * shown.index(knee - 1) if knee - 1 in shown else None
    if at is None:
        return [axis, caption]
    label = f"knee: unit {knee} of {units}"
    # The label stands on the side where there is room for it.
    line = f"{' ' * at}▲ {label}" if at < len(label) + 2 else f"{label + ' ▲':>{at + 1}}"
    return [axis, Text(line), caption]


def _tick_label(row: int, top: float) -> str:
    return f"{percent(top * (row + 1) / HEIGHT, 0)} " if row in (HEIGHT - 1, HEIGHT // 2 - 1) else ""


def _accuracy(value: float, n: int) -> str:
    return accuracy_text(value, n) if math.isfinite(value) else "-"
