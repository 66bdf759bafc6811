"""Tables without lines, which every summary of a command uses."""

from __future__ import annotations

from rich.table import Table


def grid() -> Table:
    """Returns a table without header and lines."""
    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
