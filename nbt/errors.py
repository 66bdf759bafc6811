"""Errors for people: what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NbtError(Exception):
    """Something failed at run time; the command line exits with code 1."""

    exit_code = 1


class UsageError(NbtError, ValueError):
    """The input was wrong: the message names it and the remedy; the command line exits with code 2."""

    exit_code = 2


def require_positive(**counts: int) -> None:
    """Raises UsageError for the first count, by its name, that is not 1 or more."""
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name.replace('_', ' ')}: {count} is not 1 or more")


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Returns a half-sentence with the known names closest to `name`, for the end of an error message.

    Args:
        name: What the user wrote.
        known: The names that would have been accepted.
        count: The most names to suggest.

    Returns:
        "did you mean a, b?" where something is close, else "known: a, b, c, ..." (the first dozen).
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    shown = ", ".join(names[:12])
    return f"known: {shown}{', ...' if len(names) > 12 else ''}"
