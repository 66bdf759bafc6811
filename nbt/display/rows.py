"""One line of a display: a label with a text, or with a progress bar and texts that fit the width of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_LABEL_WIDTH = 8
_BAR_WIDTH = 28
_MIN_BAR_WIDTH = 6
_GAP = 2


@dataclass(frozen=True)
class BarRow:
    """A label, a progress bar, and texts. On a narrow terminal the bar is short or absent, then the last texts are.

    Attributes:
        label: The label.
        done: Finished part of the total.
        total: The total.
        texts: Texts in the order of their importance; commas separate them.
    """

    label: str
    done: float
    total: float
    texts: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        left = options.max_width - max(_LABEL_WIDTH, len(self.label)) - _GAP
        texts = [text for text in self.texts if text]
        while len(texts) > 1 and len(", ".join(texts)) > left:
            texts.pop()
        text = ", ".join(texts)
        width = min(_BAR_WIDTH, left - _GAP - len(text))
        if width < _MIN_BAR_WIDTH:
            yield text_row(self.label, text)
            return
        yield _row(self.label, ProgressBar(max(self.total, 1e-9), min(self.done, self.total), width=width), text)


def text_row(label: str, text: str = "", *, style: str = "") -> RenderableType:
    """Returns one line with a label and a text, the end of which is cut off on a narrow terminal."""
    return _row(label, *([text] if text else []), style=style)


def _row(label: str, *cells: RenderableType, style: str = "") -> Table:
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(min_width=_LABEL_WIDTH if cells else None, style=style)
    for _ in cells:
        grid.add_column()
    texts = (
        Text(cell, no_wrap=True, overflow="ellipsis") if isinstance(cell, str) else cell for cell in (label, *cells)
    )
    grid.add_row(*texts)
    return grid
