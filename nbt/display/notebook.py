"""A display in the output of a notebook's cell, which is updated in place."""

from __future__ import annotations

import importlib
import io
from typing import Any

from rich.console import Console, Group, RenderableType

_WIDTH = 100
_PAGE = '<pre style="line-height: normal; margin: 0">{code}</pre>'


class NotebookDisplay:
    """Shows what rich can render; a notebook stores only the last state.

    IPython, in whose kernel the process runs, is no dependency of nbt.
    """

    def __init__(self) -> None:
        self._ipython: Any = importlib.import_module("IPython.display")
        self._handle = self._ipython.display(self._ipython.HTML(""), display_id=True)
        self._kept: list[RenderableType] = []

    def keep(self, text: RenderableType) -> None:
        """Adds a line that stays above the display."""
        self._kept.append(text)

    def show(self, *parts: RenderableType) -> None:
        """Replaces what is shown; without parts, only the lines that are kept remain."""
        self._handle.update(self._ipython.HTML(to_html(Group(*self._kept, *parts))))


def to_html(renderable: RenderableType) -> str:
    """Returns what rich renders as HTML, escaped."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=_WIDTH,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_PAGE)
