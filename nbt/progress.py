"""The type of the progress callbacks of long operations."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as progress(description, done, total); the total is 0 where it is unknown."""
