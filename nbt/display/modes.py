"""How progress is shown: a live display on a terminal or in a notebook, lines of text, or nothing."""

from __future__ import annotations

import os
import sys

LIVE, NOTEBOOK, LINES, OFF = MODES = ("live", "notebook", "lines", "off")


def terminal_mode() -> str:
    """Returns `LIVE` if stderr is a terminal that can redraw lines, else `LINES`."""
    return LIVE if sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown") else LINES


def python_mode(progress: bool | None) -> str:
    """Returns how a function that is called from Python shows its progress.

    Args:
        progress: False shows nothing; None shows a live display in a notebook or on a terminal; True shows lines of
            text elsewhere, too.
    """
    if progress is False:
        return OFF
    mode = NOTEBOOK if _in_notebook() else terminal_mode()
    return OFF if mode == LINES and not progress else mode


def _in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook, as Jupyter, JupyterLab and Colab start it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
