"""Rows of a study: files of JSON lines that a resumed study extends."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nbt.files import atomic_file

Row = dict[str, Any]

_KEY = ("arm", "recipe", "dataset", "seed", "changes")


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a file, none if it does not exist."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def latest_rows(path: Path) -> list[Row]:
    """Returns the rows of a file; of a run that was repeated, the last one."""
    rows = read_rows(path)
    keys = [json.dumps([row.get(key) for key in _KEY]) for row in rows]
    return list(dict(zip(keys, rows, strict=True)).values())


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a row; several processes may do so."""
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the rows of a file."""
    with atomic_file(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
