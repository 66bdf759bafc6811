"""Drawings as SVG text for a page: their style, axes in percent, and colours that follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbt.report.formatting import one_line

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


def percent_axis(axis: Any) -> None:
    """Writes the shares along an axis as percents."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axis.get_major_locator().set_params(nbins=6)


def integer_axis(axis: Any) -> None:
    """Marks whole numbers alone along an axis."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True))


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
