"""The usual names of the columns of a CSV manifest, and the usual values of its split column."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nbt.data.image_files import SPLIT_ALIASES
from nbt.errors import UsageError, nearest

_PATHS = ("path", "image_path", "img_path", "file_path", "filepath", "imagepath", "relative_path", "relpath")
_FILES = (
    "file",
    "filename",
    "file_name",
    "image",
    "img",
    "image_name",
    "img_name",
    "image_file",
    "image_filename",
)
PATH_COLUMNS = (*_PATHS, *_FILES, "fname", "image_id", "img_id", "id", "name")
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "classname", "label_name", "class_label", "category", "category_name"),
    *("target", "species", "diagnosis", "tag", "dx", "y", "class_id", "label_id", "category_id"),
)
_FOLD_COLUMN = "fold"
# Columns of yes or no: the split of "yes", and that of "no".
_YES_NO_COLUMNS = {
    **dict.fromkeys(("is_test", "istest"), ("test", "train")),
    **dict.fromkeys(("is_val", "is_valid", "is_validation", "isval", "isvalid"), ("val", "train")),
    **dict.fromkeys(("is_train", "is_training", "istrain"), ("train", "test")),
}
_NAMED_SPLITS = (
    "split",
    "set",
    "subset",
    "partition",
    "usage",
    "phase",
    "data_split",
    "split_name",
    "train_test_split",
)
SPLIT_COLUMNS = (*_NAMED_SPLITS, *_YES_NO_COLUMNS, _FOLD_COLUMN)
_MAX_VALUES_SHOWN = 10
_YES, _NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")

_SPLIT_VALUES = {
    **SPLIT_ALIASES,
    **dict.fromkeys(("trn", "learn"), "train"),
    **dict.fromkeys(("validate", "publictest"), "val"),
    **dict.fromkeys(("tst", "eval", "evaluation", "holdout", "privatetest"), "test"),
}


class Columns(NamedTuple):
    """The columns of a manifest.

    Attributes:
        path: Index of the image column.
        label: Index of the label column.
        split: Index of the split column; None without one.
        split_name: Name of the split column in the header, in lower case; "" without one.
    """

    path: int
    label: int
    split: int | None = None
    split_name: str = ""


def find_columns(fields: Sequence[str], where: str) -> Columns:
    """Returns the columns that a header names.

    Args:
        fields: The fields of the header.
        where: Name of the line in messages.

    Raises:
        UsageError: A column is missing, misspelt or given twice, or several columns of yes or no give the split.
    """
    names = [re.sub(r"[\s-]+", "_", field.strip().lower()) for field in fields]
    path, label = (_find(names, known, where) for known in (PATH_COLUMNS, LABEL_COLUMNS))
    split = _find(names, SPLIT_COLUMNS, where, required=False)
    assert path is not None and label is not None
    several = [name for name in names if name in _YES_NO_COLUMNS]
    if split is not None and names[split] in _YES_NO_COLUMNS and len(several) > 1:
        raise UsageError(f"{where}: several columns give the split ({', '.join(several)}); give one column split")
    return Columns(path, label, split, "" if split is None else names[split])


def read_splits(values: Sequence[str], numbers: Sequence[int], column: str, source: str) -> list[str]:
    """Returns the split of each value of the split column: "train", "val", "test", or "" for an empty value.

    A fold column of numbers only, as for a cross-validation, is no split.

    Args:
        values: The values, without spaces around them.
        numbers: Their line numbers.
        column: Name of the column.
        source: Name of the manifest in messages.

    Raises:
        UsageError: A value is unknown; the message lists all unknown values with their counts.
    """
    if column == _FOLD_COLUMN and all(value.isdecimal() or not value for value in values):
        return [""] * len(values)
    splits = {value: _read_split(value, column) for value in set(values)}
    unknown = Counter(value for value in values if splits[value] is None)
    if unknown:
        first = next(iter(unknown))
        listed = ", ".join(f"{value!r} ({count} times)" for value, count in unknown.most_common(_MAX_VALUES_SHOWN))
        more = f" and {len(unknown) - _MAX_VALUES_SHOWN} more" if len(unknown) > _MAX_VALUES_SHOWN else ""
        expected = (
            "expected yes or no" if column in _YES_NO_COLUMNS else nearest(first.lower(), ("train", "val", "test"))
        )
        raise UsageError(
            f"{source}, line {numbers[values.index(first)]}: unknown split {first!r}; {expected}; the column "
            f"{column!r} has these unknown values: {listed}{more}; correct them, or rename the column if it is no split"
        )
    if column not in _YES_NO_COLUMNS:
        _check_one_name_per_split(splits, source)
    return [splits[value] or "" for value in values]


def _find(names: Sequence[str], known: Sequence[str], where: str, *, required: bool = True) -> int | None:
    found = next((name for name in known if name in names), None)
    if found is not None:
        if names.count(found) > 1:
            raise UsageError(f"{where}: the column {found!r} appears twice")
        return names.index(found)
    column = known[0]
    close = difflib.get_close_matches(column, _unknown(names), n=1, cutoff=0.7)
    if close:
        raise UsageError(f"{where}: unknown column {close[0]!r}; did you mean {column}?")
    if required:
        raise UsageError(
            f"{where}: missing column {column!r} (or {', '.join(known[1:6])}, ...); expected the header path,label or "
            "path,label,split"
        )
    return None


def _unknown(names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in (*PATH_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS)]


def _read_split(value: str, column: str) -> str | None:
    """Returns the split that a value names; None for an unknown value."""
    key = _key(value)
    if not value:
        return ""
    if column in _YES_NO_COLUMNS and key in (*_YES, *_NO):
        return _YES_NO_COLUMNS[column][key in _NO]
    return _SPLIT_VALUES.get(key) or _SPLIT_VALUES.get(_stem(key))


def _key(value: str) -> str:
    return re.sub(r"[^a-z0-9]", "", value.lower())


def _stem(key: str) -> str:
    return re.sub(r"(set|split|data|images)$", "", key)


def _check_one_name_per_split(splits: Mapping[str, str | None], source: str) -> None:
    """Checks that no split has two names in one file, as folders must not have.

    Raises:
        UsageError: Two values that differ in more than their spelling mean the same split.
    """
    names: dict[str, tuple[str, str]] = {}
    for value in sorted(filter(None, splits)):
        split, stem = splits[value] or "", _stem(_key(value))
        first, other = names.setdefault(split, (stem, value))
        if first != stem:
            raise UsageError(
                f"{source}: {other!r} and {value!r} are both {split}; give each split one name, and other images none"
            )
