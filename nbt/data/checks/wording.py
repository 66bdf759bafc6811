"""Words of the messages of the checks."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """Returns a number with its noun, such as "1 class" or "1,200 images"."""
    plural = noun if n == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n:,} {plural}"


def share_of(n: int, total: int) -> str:
    """Returns "3 of 60 images (5.0 %)"."""
    return f"{n:,} of {total:,} images ({100 * n / total:.1f} %)"
