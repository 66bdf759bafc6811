"""Reads CSV manifests: `path,label[,split]`, one image per line."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nbt.data.formats import IMAGE_SUFFIXES
from nbt.data.image_files import (
    LabelledFile,
    LabelledFiles,
    PassedOver,
    describe_passed_over,
    sort_class_names,
    subfolders,
)
from nbt.data.readers.manifest_columns import Columns, find_columns, find_split_by_values, read_splits
from nbt.errors import UsageError

SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
"""Suffixes of manifests."""

MISSING = "named in the manifest, but missing"
REPEATED = "line that repeats another one"
UNLABELLED = "line without a label"

_DELIMITERS = ",;\t|"
# "nan" is how pandas writes a missing label as text.
_NO_LABEL = ("", "nan")
# Suffixes that are tried where a manifest names images without one.
_USUAL_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".JPG", ".JPEG", ".PNG", ".TIF")
_MAX_NAMES_SHOWN = 5
_MAX_SUBFOLDERS = 20

IsFile = Callable[[Path], bool]


def read_manifest(path: Path) -> LabelledFiles:
    """Reads a manifest file, in UTF-8, in UTF-16 with a byte-order mark, or else in Windows-1252.

    Raises:
        UsageError: The file cannot be read, `parse_manifest` raises, or there are no images or one class only.
    """
    try:
        text = _decode(path.read_bytes())
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV manifest ({error})") from error
    files = parse_manifest(text, path.parent, source=str(path))
    labels = sort_class_names(row.label for row in files.images)
    others = f"; passed over: {describe_passed_over(files.passed_over)}" if files.passed_over else ""
    if not files.images:
        raise UsageError(f"{path}: names no images; expected lines of path,label below the header{others}")
    if len(labels) == 1:
        raise UsageError(f"{path}: has one class only ({labels[0]}); expected two or more{others}")
    return files


def parse_manifest(text: str, folder: Path, *, source: str, is_file: IsFile = os.path.isfile) -> LabelledFiles:
    """Parses the text of a manifest.

    Fields are separated by commas, semicolons, tabs or "|", as in the header.

    Args:
        text: CSV with a header with an image column and a label column, and optionally a split column; see
            `manifest_columns`. Other columns are ignored. Where some lines have a split and others none, those without
            belong to train.
        folder: Folder that relative paths refer to. A file that is not there is looked for in the subfolder of the name
            of the manifest, in the other subfolders, in the parent and in images next to it; a path may have
            backslashes or lack the suffix of the image.
        source: Name of the text in messages, usually its path.
        is_file: Returns whether a path is an existing file.

    Returns:
        One entry per image, in order. Missing images, repeated lines and lines without a label are passed over.

    Raises:
        UsageError: A column is missing or misspelt, a line has too few or too many fields, a path is empty, a split is
            unknown, an image is in several places or has two labels or splits, or all images are missing.
    """
    columns, lines = _read_lines(text, source)
    splits = _read_splits(columns, lines, source)
    rows: dict[Path, tuple[LabelledFile, int]] = {}
    missing: dict[Path, PassedOver] = {}
    passed_over: list[PassedOver] = []
    # Beside train.csv, the folder train holds its images.
    first, others = (folder, folder / Path(source).stem), _other_places(folder)
    for (number, fields), split in zip(lines, splits, strict=True):
        where = f"{source}, line {number}"
        name, label = fields[columns.path].strip(), fields[columns.label].strip()
        if not name:
            raise UsageError(f"{where}: the path is empty")
        path = _locate(name, first, others, where, is_file)
        if path is None:
            path = Path(os.path.normpath(folder / name))
            missing[path] = PassedOver(path, MISSING)
        elif label.lower() in _NO_LABEL:
            passed_over.append(PassedOver(path, UNLABELLED))
        elif not _add_row(rows, LabelledFile(path, label, split), number, where):
            passed_over.append(PassedOver(path, REPEATED))
    if missing and not rows and not passed_over:
        shown = ", ".join(str(path) for path in list(missing)[:_MAX_NAMES_SHOWN])
        more = ", ..." if len(missing) > _MAX_NAMES_SHOWN else ""
        raise UsageError(f"{source}: no such file: {shown}{more}; all {len(missing)} images are missing")
    return LabelledFiles([row for row, _ in rows.values()], [*missing.values(), *passed_over])


def _read_splits(columns: Columns, lines: list[tuple[int, list[str]]], source: str) -> list[str]:
    """Returns the split of each line, "" without one."""
    if columns.split is None:
        columns = find_split_by_values(columns, [fields for _, fields in lines], source)
    if columns.split is None:
        return [""] * len(lines)
    texts = [fields[columns.split].strip() for _, fields in lines]
    return read_splits(texts, [number for number, _ in lines], columns.names[columns.split], source)


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        return content.decode("cp1252")


def _read_lines(text: str, source: str) -> tuple[Columns, list[tuple[int, list[str]]]]:
    """Returns the columns that the header names, and the number and the fields of each line below it.

    Raises:
        UsageError: The text is not valid CSV, or `find_columns` raises.
    """
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    # newline="" leaves line ends to csv, because they may occur inside quotes.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    columns: Columns | None = None
    lines: list[tuple[int, list[str]]] = []
    width = 0
    try:
        for fields in reader:
            where = f"{source}, line {reader.line_num}"
            if not any(field.strip() for field in fields):
                continue
            if columns is None:
                columns, width = find_columns(fields, where), len(fields)
            elif len(fields) != width:
                raise UsageError(f"{where}: has {len(fields)} fields, the header {width}")
            else:
                lines.append((reader.line_num, fields))
    except csv.Error as error:
        raise UsageError(f"{source}, line {reader.line_num}: not valid CSV ({error})") from error
    if columns is None:
        raise UsageError(f"{source}: is empty; expected the header path,label or path,label,split")
    return columns, lines


def _locate(name: str, first: Sequence[Path], others: Sequence[Path], where: str, is_file: IsFile) -> Path | None:
    """Returns the file that a manifest names, in the first of some folders or in one of the others; None without one.

    Raises:
        UsageError: The file is in several of the other folders.
    """
    for place in first:
        if (path := _find_file(name, place, is_file)) is not None:
            return path
    found = list(dict.fromkeys(path for other in others if (path := _find_file(name, other, is_file)) is not None))
    if len(found) > 1:
        raise UsageError(f"{where}: {name} may be {found[0]} or {found[1]}; give the path from the manifest's folder")
    return found[0] if found else None


def _find_file(name: str, folder: Path, is_file: IsFile) -> Path | None:
    paths = (Path(os.path.normpath(folder / spelling)) for spelling in _spellings(name))
    return next(filter(is_file, paths), None)


def _other_places(folder: Path) -> list[Path]:
    """Returns the folders in which images may be that are not in the folder of their manifest."""
    try:
        inside = subfolders(folder)[:_MAX_SUBFOLDERS]
    except OSError:
        inside = []
    return [folder / "images", *inside, folder.parent, folder.parent / "images"]


def _spellings(name: str) -> Iterator[str]:
    """Yields the name as it is written, with slashes instead of backslashes, and with usual suffixes."""
    yield name
    slashed = name.replace("\\", "/")
    if slashed != name:
        yield slashed
    if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122
        yield from (slashed + suffix for suffix in _USUAL_SUFFIXES)


def _add_row(rows: dict[Path, tuple[LabelledFile, int]], row: LabelledFile, line: int, where: str) -> bool:
    """Adds a row, and returns True, unless the same image is present already with the same label and split."""
    earlier, first = rows.setdefault(row.path, (row, line))
    for field, old, new in (("label", earlier.label, row.label), ("split", earlier.split, row.split)):
        if old != new:
            raise UsageError(f"{where}: {row.path.name} has the {field} {new!r}, but {old!r} in line {first}")
    return first == line
