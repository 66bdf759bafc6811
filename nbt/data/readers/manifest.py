"""Reads CSV manifests: `path,label[,split]`, one image per line."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from nbt.data.image_files import SPLIT_ALIASES, LabelledFile, sort_class_names
from nbt.errors import UsageError, nearest

COLUMNS = ("path", "label", "split")


def read_manifest(path: Path) -> list[LabelledFile]:
    """Reads a manifest file.

    Raises:
        UsageError: The file cannot be read, `parse_manifest` raises, or there are no images or one class only.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV manifest ({error})") from error
    rows = parse_manifest(text, path.parent, source=str(path))
    labels = sort_class_names(row.label for row in rows)
    if not rows:
        raise UsageError(f"{path}: names no images; expected lines of path,label below the header")
    if len(labels) == 1:
        raise UsageError(f"{path}: has one class only ({labels[0]}); a task needs two or more")
    return rows


def parse_manifest(
    text: str, folder: Path, *, source: str, is_file: Callable[[Path], bool] = os.path.isfile
) -> list[LabelledFile]:
    """Parses the text of a manifest.

    Args:
        text: CSV with a header with the columns path and label, and optionally split; other columns are ignored. Where
            some lines have a split and others none, those without belong to train.
        folder: Folder that relative paths refer to.
        source: Name of the text in messages, usually its path.
        is_file: Returns whether a path is an existing file.

    Returns:
        One entry per image, in order; repeated lines count once.

    Raises:
        UsageError: A column is missing or misspelt, a line has too few or too many fields, a value is empty, a split is
            unknown, a file is missing, or an image has two labels or splits. The message names the line.
    """
    # newline="" leaves line ends to csv, because they may occur inside quotes.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, tuple[LabelledFile, int]] = {}
    columns: list[int | None] | None = None
    width = 0
    try:
        for fields in reader:
            where = f"{source}, line {reader.line_num}"
            if not any(field.strip() for field in fields):
                continue
            if columns is None:
                columns, width = _find_columns(fields, where), len(fields)
                continue
            row = _read_row(fields, columns, width, folder, where)
            _add_row(rows, row, reader.line_num, where, is_file)
    except csv.Error as error:
        raise UsageError(f"{source}, line {reader.line_num}: not valid CSV ({error})") from error
    if columns is None:
        raise UsageError(f"{source}: is empty; expected the header path,label or path,label,split")
    return [row for row, _ in rows.values()]


def _find_columns(fields: Sequence[str], where: str) -> list[int | None]:
    """Returns the column indices of path, label and split; None for a missing split."""
    names = [field.strip().lower() for field in fields]
    repeated = [name for name in COLUMNS if names.count(name) > 1]
    if repeated:
        raise UsageError(f"{where}: the column {repeated[0]!r} appears twice")
    unknown = [name for name in names if name not in COLUMNS]
    for column in COLUMNS:
        close = difflib.get_close_matches(column, unknown, n=1, cutoff=0.7)
        if column not in names and close:
            raise UsageError(f"{where}: unknown column {close[0]!r}; did you mean {column}?")
        if column not in names and column != "split":
            raise UsageError(f"{where}: missing column {column!r}; expected the header path,label or path,label,split")
    return [names.index(column) if column in names else None for column in COLUMNS]


def _read_row(fields: Sequence[str], columns: list[int | None], width: int, folder: Path, where: str) -> LabelledFile:
    if len(fields) != width:
        raise UsageError(f"{where}: has {len(fields)} fields, the header {width}")
    path, label, split = ("" if column is None else fields[column].strip() for column in columns)
    if not path or not label:
        raise UsageError(f"{where}: the {'path' if not path else 'label'} is empty")
    split_name = SPLIT_ALIASES.get(split.lower())
    if split and split_name is None:
        raise UsageError(f"{where}: unknown split {split!r}; {nearest(split.lower(), ('train', 'val', 'test'))}")
    return LabelledFile(Path(os.path.normpath(folder / path)), label, split_name or "")


def _add_row(
    rows: dict[str, tuple[LabelledFile, int]], row: LabelledFile, line: int, where: str, is_file: Callable[[Path], bool]
) -> None:
    """Adds a row, unless the same image is present already with the same label and split."""
    key = str(row.path)
    if key not in rows:
        if not is_file(row.path):
            raise UsageError(f"{where}: no such file: {row.path}")
        rows[key] = (row, line)
        return
    earlier, first = rows[key]
    for field, old, new in (("label", earlier.label, row.label), ("split", earlier.split, row.split)):
        if old != new:
            raise UsageError(f"{where}: {row.path.name} has the {field} {new!r}, but {old!r} in line {first}")
