"""The names of the teachers of a search: one text, a list, or YAML text of a list."""

from __future__ import annotations

import json
from typing import Any

from nbt.errors import UsageError
from nbt.yaml_loader import parse_yaml_list


def parse_teacher_names(value: Any) -> tuple[str, ...]:
    """Reads the names of teachers.

    Args:
        value: None, the name of a teacher, YAML or JSON text of a list, which starts with "[", or a list of such names
            and texts.

    Returns:
        The names as they are written, see `nbt.models.teacher.parse_teacher`; empty for None.

    Raises:
        UsageError: The value has another form, or the list is empty.
    """
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    names = [name for item in items for name in _split(item)]
    if not names or not all(isinstance(name, str) and name for name in names):
        shown = ", ".join(map(repr, names)) or "an empty list"
        raise UsageError(f"--teacher: expected BACKBONE or BACKBONE=FILE, or a list of such texts, got {shown:.80}")
    return tuple(names)


def _split(item: Any) -> list[Any]:
    """Returns the items of a text of a list, and anything else as the only item."""
    if not isinstance(item, str) or not item.lstrip().startswith("["):
        return [item]
    return [name for _, name in parse_yaml_list(item, source="teacher", items="teachers")]


def teacher_names_text(value: Any) -> str:
    """Returns the names of teachers as one text, which `parse_teacher_names` reads; for one teacher, its name."""
    names = parse_teacher_names(value)
    return names[0] if len(names) == 1 else json.dumps(names)
