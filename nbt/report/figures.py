"""Figures of Matplotlib on a white page, for files and notebooks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbt.report import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIGHT_COLORS = {
    svg.INK: "#16202b",
    svg.MUTED: "#5b6875",
    svg.GRID: "#dfe4ea",
    svg.PAPER: "#ffffff",
    svg.BEST: "#d55e00",
    svg.FULL: "#0072b2",
    svg.PRUNED: "#8c97a3",
    svg.DEFAULT: "#009e73",
}
"""Colours of the roles of `nbt.report.svg` on a white page."""

_DPI = 160


@contextmanager
def light_style(salt: str) -> Iterator[None]:
    """Returns a context in which figures have the style of the reports on a white page.

    Args:
        salt: Makes identifiers in SVG files reproducible.
    """
    from matplotlib import rc_context

    style = {
        key: LIGHT_COLORS.get(value, value) if isinstance(value, str) else value for key, value in svg.STYLE.items()
    }
    with rc_context({**style, "figure.facecolor": "white", "savefig.transparent": False, "svg.hashsalt": salt}):
        yield


def notebook_figure(width: float, height: float) -> Figure:
    """Returns an empty figure that a notebook shows, also without pyplot, which would show it twice.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure that IPython shows as an image."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=_DPI / 2)
            return buffer.getvalue()

    figure = NotebookFigure(figsize=(width, height), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure
