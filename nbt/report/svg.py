"""SVG drawings for a page: common style, percent axes, and colours that follow the theme of the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from nbt.metrics import Metric
from nbt.report.formatting import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Handles = dict[str, Any]

T = TypeVar("T")

# Placeholder colours, which `_to_svg` replaces by the variables of the style sheet.
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

MAX_DRAWN = 500
"""Greatest number of trials that are drawn one by one: more take minutes and make a page of tens of megabytes."""

# Width of all drawings in inches.
_WIDTH = 4.6
# Number of characters beyond which three entries of a legend do not fit beside each other.
_LONG_LABEL = 21

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
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.transparent": True,
    "text.parse_math": False,
}


def evenly_spaced(items: Sequence[T], count: int) -> Sequence[T]:
    """Returns at most `count` items, 1 or more, evenly spaced."""
    return items[:: max(1, math.ceil(len(items) / count))]


def percent_axis(axis: Any) -> None:
    """Formats the ticks of an axis of shares as percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axis.get_major_locator().set_params(nbins=6)


def score_axis(axis: Any, metric: Metric) -> None:
    """Formats the ticks of an axis of scores as values of the metric."""
    percent_axis(axis)
    if not metric.is_share:
        axis.set_major_formatter(lambda score, _: f"{metric.value(score):.3g}")


def integer_axis(axis: Any) -> None:
    """Places the ticks of an axis at integers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def render_svg(name: str, title: str, height: float, draw: Callable[[Axes], Handles]) -> str:
    """Returns a drawing as SVG text.

    Args:
        name: Unique name within a page, from which the identifiers in the SVG are derived.
        title: Accessible description of the drawing.
        height: Height in inches; the width is the same for all drawings.
        draw: Draws onto the axes and returns the entries of the legend: label -> handle.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        handles = draw(figure.add_subplot())
        if handles:
            columns = 2 if max(map(len, handles)) > _LONG_LABEL else 3
            figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=columns)
        return _to_svg(figure, title)


def _to_svg(figure: Figure, title: str) -> str:
    """Returns the figure as inline SVG: without prolog and fixed size, with colour roles and tooltips."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>\s*", "", text, flags=re.S)
    text = re.sub(r'<g id="tip:([^"]*)">', lambda m: f"<g><title>{_decode_tip(m[1])}</title>", text)
    text = re.sub(r'(<g) id="[A-Za-z]+[_0-9.]*[^"]*"', r"\1", text)
    # The font family comes from the page. Matplotlib writes it separately or, in older versions, after the size.
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
    """Returns a group identifier that encodes a tooltip. Matplotlib writes it as an attribute; `_to_svg` decodes it."""
    return "tip:" + one_line(text).encode("utf-8").hex()


def _decode_tip(code: str) -> str:
    from xml.sax.saxutils import escape

    return escape(bytes.fromhex(code).decode("utf-8"))
