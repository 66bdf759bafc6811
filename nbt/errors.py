"""Errors that are shown to users: what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NbtError(Exception):
    """A failure at run time; the command line exits with code 1."""

    exit_code = 1


class UsageError(NbtError, ValueError):
    """Wrong input; the message names it and the remedy. The command line exits with code 2."""

    exit_code = 2


def require_positive(**counts: int) -> None:
    """Checks that counts, given by name, are 1 or more.

    Raises:
        UsageError: A count is below 1; the message names the first one.
    """
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name.replace('_', ' ')}: {count} is not 1 or more")


def one_line_message(error: BaseException, max_length: int = 160) -> str:
    """Returns an error's message on one line, cut to `max_length` characters; the error's type where it has none."""
    return " ".join(str(error).split())[:max_length] or type(error).__name__


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Returns the end of an error message that suggests the known names closest to `name`.

    Args:
        name: The name that the user gave.
        known: The accepted names.
        count: Maximum number of suggestions.

    Returns:
        "did you mean a, b?" where a known name is close, else "known: a, b, c, ..." with up to twelve names.
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    shown = ", ".join(names[:12])
    return f"known: {shown}{', ...' if len(names) > 12 else ''}"
