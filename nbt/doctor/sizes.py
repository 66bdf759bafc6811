"""Sizes of memory and files as text."""

from __future__ import annotations

MIB, GIB = 2**20, 2**30


def size_text(size: int) -> str:
    """Returns a size in bytes as "12.3 GiB", "450 MiB" or "0 MiB"."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
