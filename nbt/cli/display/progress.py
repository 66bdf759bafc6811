"""Progress of a long command on stderr: a live display on a terminal, lines of text elsewhere, nothing with -q."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nbt.cli.display.output import Output

_BAR_WIDTH = 28


class Progress:
    """Shows the progress of one activity at a time, such as decoding or downloading.

    The display is shown inside a `with` block. The method `update` is a progress callback; see `nbt.progress.Progress`.

    Args:
        out: Output of the command; `-q` hides the progress.
        clock: Returns a monotonic time in seconds.
    """

    def __init__(self, out: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._mode = "off" if out.quiet else "live" if _supports_live_display() else "lines"
        self._clock = clock
        self._live: Live | None = None
        self._activity: tuple[str, int, int] | None = None
        self._announcement = "starting"

    def __enter__(self) -> Self:
        if self._mode == "live":
            console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            self._live = Live(
                console=console,
                get_renderable=self.render,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,  # results are printed after the display has stopped
            )
            self._live.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()

    def announce(self, text: str) -> None:
        """Shows an activity that starts now and has no countable progress."""
        self._activity = None
        self._announcement = text
        self._line(text)

    def update(self, label: str, done: int, total: int) -> None:
        """Shows the progress of an activity; see `nbt.progress.Progress`.

        Args:
            label: Name of the activity.
            done: Number of finished steps.
            total: Number of all steps; 0 if it is unknown.
        """
        is_new = self._activity is None or self._activity[0] != label
        is_finished = 0 < total <= done
        if is_new and not is_finished:
            self._line(label)
        self._activity = None if is_finished else (label, done, total)
        if is_finished:
            self._announcement = label

    def render(self) -> RenderableType:
        """Returns the current display."""
        return Group(*self._rows())

    def _rows(self) -> list[RenderableType]:
        if self._activity is None:
            return [text_row(self._announcement, "")]
        label, done, total = self._activity
        if not total:
            return [text_row(label, f"{done:,}" if done else "")]
        return [bar_row(label, done, total, f"{100 * done // total} %")]

    def _line(self, text: str, *, keep: bool = False) -> None:
        """Writes a line where there is no live display; above the live display if it is to be kept."""
        if self._mode == "lines":
            print(text, file=sys.stderr, flush=True)
        elif keep and self._live is not None:
            self._live.console.print(text)


def _supports_live_display() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _grid(*cells: Any, style: str = "") -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=None if len(cells) == 1 else 8, no_wrap=True, style=style)
    for _ in cells[1:]:
        grid.add_column(no_wrap=True)
    grid.add_row(*cells)
    return grid


def text_row(label: str, text: str, *, style: str = "") -> RenderableType:
    """Returns one line of a display with a label and a text."""
    return _grid(Text(label), Text(text), style=style) if text else _grid(Text(label), style=style)


def bar_row(label: str, done: float, total: float, text: str) -> RenderableType:
    """Returns one line of a display with a label, a progress bar and a text."""
    bar = ProgressBar(total=max(total, 1e-9), completed=min(done, total), width=_BAR_WIDTH)
    return _grid(Text(label), bar, Text(text))
