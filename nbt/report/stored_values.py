"""Stored: what a study's storage holds as JSON, read so that a damaged or older entry is absent and breaks nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number_at(values: Mapping[str, Any], key: str) -> float | None:
    """Returns a finite number, None where there is none."""
    return finite(values.get(key))


def finite(value: Any) -> float | None:
    """Returns the value where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def text_at(values: Mapping[str, Any], key: str) -> str:
    """Returns a text, "" where there is none."""
    value = values.get(key)
    return value if isinstance(value, str) else ""


def list_at(values: Mapping[str, Any], key: str) -> list[Any]:
    """Returns a list, an empty one where there is none."""
    value = values.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def mappings_at(values: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Returns the mappings of a list, without what is none."""
    return [item for item in list_at(values, key) if isinstance(item, Mapping)]
