"""The callback that long operations tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as progress(what is being done, done so far, total or 0 where it is unknown)."""
