"""Tolerant readers of stored JSON values: a damaged or missing entry reads as absent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number_at(values: Mapping[str, Any], key: str) -> float | None:
    """Returns the finite number under a key, or None."""
    return finite(values.get(key))


def finite(value: Any) -> float | None:
    """Returns the value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def text_at(values: Mapping[str, Any], key: str) -> str:
    """Returns the text under a key, or ""."""
    value = values.get(key)
    return value if isinstance(value, str) else ""


def list_at(values: Mapping[str, Any], key: str) -> list[Any]:
    """Returns the list under a key, or an empty list."""
    value = values.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def mappings_at(values: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Returns the mappings in the list under a key; other items are skipped."""
    return [item for item in list_at(values, key) if isinstance(item, Mapping)]
