"""Progress of a long operation: a live display on a terminal or in a notebook, lines of text elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live

from nbt.display.modes import LINES, LIVE, NOTEBOOK, python_mode
from nbt.display.notebook import NotebookDisplay
from nbt.display.rows import BarRow, text_row
from nbt.errors import printable
from nbt.progress import Progress as ProgressCallback

_NOTEBOOK_SECONDS = 0.5
"""Shortest time between two updates in a notebook, which stores every message of a cell while it runs."""


class Progress:
    """Shows the progress of one activity at a time, such as decoding or downloading.

    The display is shown inside a `with` block. The method `update` is a progress callback; see `nbt.progress.Progress`.

    Args:
        mode: One of `nbt.display.modes.MODES`.
        clock: Returns a monotonic time in seconds.
    """

    def __init__(self, mode: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._mode = mode
        self._clock = clock
        self._live: Live | None = None
        self._notebook: NotebookDisplay | None = None
        self._shown_at = -_NOTEBOOK_SECONDS
        self._activity: tuple[str, int, int] | None = None
        self._announcement = "starting"

    def __enter__(self) -> Self:
        if self._mode == NOTEBOOK:
            self._notebook = NotebookDisplay()
        if self._mode == LIVE:
            console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            self._live = Live(
                console=console,
                get_renderable=self.render,
                refresh_per_second=4,
                transient=True,
                # Results of commands are printed after the display has stopped, and may go to a file.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._notebook is not None:
            self._notebook.show()

    def announce(self, text: str) -> None:
        """Shows an activity that starts now and has no countable progress."""
        self._activity = None
        self._announcement = text
        self._line(text)

    def keep(self, text: str) -> None:
        """Shows a line that stays, above the display where there is one."""
        self._line(text, keep=True)

    def update(self, label: str, done: int, total: int) -> None:
        """Shows the progress of an activity; see `nbt.progress.Progress`.

        Args:
            label: Name of the activity.
            done: Number of finished steps.
            total: Number of all steps; 0 if it is unknown.
        """
        is_new = self._activity is None or self._activity[0] != label
        is_finished = 0 < total <= done
        self._activity = None if is_finished else (label, done, total)
        if is_finished:
            self._announcement = label
        if is_new and not is_finished:
            self._line(label)
        self._refresh()

    def render(self) -> RenderableType:
        """Returns the current display."""
        return Group(*self._rows())

    def _rows(self) -> list[RenderableType]:
        if self._activity is None:
            return [text_row(self._announcement)]
        label, done, total = self._activity
        if not total:
            return [text_row(label, f"{done:,}" if done else "")]
        return [BarRow(label, done, total, [f"{100 * done // total} %"])]

    def _refresh(self) -> None:
        """Updates the display of a notebook; the live display of a terminal updates itself."""
        if self._notebook is not None and self._clock() - self._shown_at >= _NOTEBOOK_SECONDS:
            self._shown_at = self._clock()
            self._notebook.show(self.render())

    def _line(self, text: str, *, keep: bool = False) -> None:
        """Writes a line where there is no live display; above the live display if it is to be kept."""
        if self._mode == LINES:
            print(printable(text), file=sys.stderr, flush=True)
        elif keep and self._live is not None:
            self._live.console.print(printable(text))
        elif keep and self._notebook is not None:
            self._notebook.keep(text)
        self._refresh()


Shown = TypeVar("Shown", bound=Progress)


@contextmanager
def shown_progress(
    progress: ProgressCallback | bool | None, display: Callable[[str], Shown]
) -> Iterator[tuple[ProgressCallback | None, Shown | None]]:
    """Returns a context with the progress callback of a function that is called from Python, and its display.

    Args:
        progress: A callback, which is used without a display; else as in `nbt.display.modes.python_mode`.
        display: Creates the display for a mode.
    """
    if callable(progress):
        yield progress, None
        return
    with display(python_mode(progress)) as created:
        yield created.update, created
