"""The usual names of the columns of a CSV manifest, and the usual values of its split column."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nbt.data.image_files import SPLIT_ALIASES
from nbt.errors import UsageError, nearest

PATH_COLUMNS = (
    *("path", "image_path", "img_path", "file_path", "relative_path", "rel_path", "paths", "image_paths"),
    *("file", "file_name", "image", "img", "image_name", "img_name", "image_file", "img_file", "image_file_name"),
    *("files", "file_names", "images", "picture", "photo", "fname", "image_id", "img_id", "photo_id", "image_index"),
    *("id", "name"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "label_name", "class_label", "category", "category_name"),
    *("target", "species", "breed", "diagnosis", "disease", "tag", "dx", "ground_truth", "y", "classes"),
    *("class_id", "label_id", "category_id", "class_index", "class_idx"),
)
_FOLD_COLUMN = "fold"
# Columns of yes or no: the split of "yes", and that of "no".
_YES_NO_COLUMNS = {
    "is_test": ("test", "train"),
    **dict.fromkeys(("is_val", "is_valid", "is_validation"), ("val", "train")),
    **dict.fromkeys(("is_train", "is_training"), ("train", "test")),
}
# The same, of names that may mean something else, so that the values have to be yes and no.
_OTHER_YES_NO_COLUMNS = {
    **dict.fromkeys(("test", "testing"), ("test", "train")),
    **dict.fromkeys(("val", "validation"), ("val", "train")),
    **dict.fromkeys(("train", "training"), ("train", "test")),
}
_NAMED_SPLITS = (
    *("split", "set", "subset", "partition", "usage", "phase", "data_split", "split_name", "train_test_split"),
    *("dataset_split", "image_set", "train_test", "train_or_test"),
)
SPLIT_COLUMNS = (*_NAMED_SPLITS, *_YES_NO_COLUMNS, _FOLD_COLUMN)
_NAMES = {
    name.replace("_", ""): name for name in (*PATH_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *_OTHER_YES_NO_COLUMNS)
}
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
        names: Names of all columns: as above where they are usual ones, else in lower case with "_" for spaces.
    """

    path: int
    label: int
    split: int | None
    names: tuple[str, ...]


def find_columns(fields: Sequence[str], where: str) -> Columns:
    """Returns the columns that a header names.

    Spaces, hyphens and underscores in names do not matter. The only column that is neither the image nor the split is
    the label, whatever its name.

    Args:
        fields: The fields of the header.
        where: Name of the line in messages.

    Raises:
        UsageError: A column is missing, misspelt or given twice, or several columns of yes or no give the split.
    """
    names = [_usual_name(re.sub(r"[\s-]+", "_", field.strip().lower())) for field in fields]
    path, split = _find(names, PATH_COLUMNS, where), _find(names, SPLIT_COLUMNS, where, required=False)
    assert path is not None
    others = [column for column in range(len(names)) if column not in (path, split) and names[column]]
    misspelt = _close_name(names, LABEL_COLUMNS[0])
    label = others[0] if len(others) == 1 and not misspelt else _find(names, LABEL_COLUMNS, where)
    assert label is not None
    several = [name for name in names if name in _YES_NO_COLUMNS]
    if split is not None and names[split] in _YES_NO_COLUMNS and len(several) > 1:
        raise _several_split_columns(several, where)
    return Columns(path, label, split, tuple(names))


def find_split_by_values(columns: Columns, rows: Sequence[Sequence[str]], where: str) -> Columns:
    """Returns the columns with the split column that the values tell, for a header that names none.

    It is the only column whose values are names of splits, of training and of another one, or which is named train, val
    or test and holds yes and no.

    Args:
        columns: The columns of the header.
        rows: The fields of all lines.
        where: Name of the manifest in messages.

    Raises:
        UsageError: There are several such columns.
    """
    others = set(range(len(columns.names))) - {columns.path, columns.label}
    found = [i for i in sorted(others) if _tells_split(columns.names[i], {row[i].strip() for row in rows})]
    if len(found) > 1:
        raise _several_split_columns([columns.names[i] for i in found], where)
    return columns._replace(split=found[0]) if found else columns


def _tells_split(name: str, values: set[str]) -> bool:
    if name in _OTHER_YES_NO_COLUMNS:
        answers = {_key(value) in _YES for value in values}
        return len(answers) == 2 and all(_key(value) in (*_YES, *_NO) for value in values)
    splits = {_read_split(value, name) for value in values}
    return len(splits - {""}) > 1 and None not in splits and "train" in splits


def _several_split_columns(names: Sequence[str], where: str) -> UsageError:
    return UsageError(f"{where}: several columns give the split ({', '.join(names)}); give one column split")


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
    if column not in (*_YES_NO_COLUMNS, *_OTHER_YES_NO_COLUMNS):
        _check_one_name_per_split(splits, values, numbers, source)
    return [splits[value] or "" for value in values]


def _find(names: Sequence[str], known: Sequence[str], where: str, *, required: bool = True) -> int | None:
    found = next((name for name in known if name in names), None)
    if found is not None:
        if names.count(found) > 1:
            raise UsageError(f"{where}: the column {found!r} appears twice")
        return names.index(found)
    column = known[0]
    if close := _close_name(names, column):
        raise UsageError(f"{where}: unknown column {close!r}; did you mean {column}?")
    if required:
        raise UsageError(
            f"{where}: missing column {column!r} (or {', '.join(known[1:6])}, ...); expected the header path,label or "
            "path,label,split"
        )
    return None


def _close_name(names: Iterable[str], column: str) -> str:
    """Returns the unknown name that is a misspelling of a column; "" without one."""
    unknown = [name for name in names if name not in _NAMES.values()]
    return next(iter(difflib.get_close_matches(column, unknown, n=1, cutoff=0.7)), "")


def _usual_name(name: str) -> str:
    return _NAMES.get(name.replace("_", ""), name)


def _read_split(value: str, column: str) -> str | None:
    """Returns the split that a value names; None for an unknown value."""
    key = _key(value)
    if not value:
        return ""
    yes_no = _YES_NO_COLUMNS.get(column) or _OTHER_YES_NO_COLUMNS.get(column)
    if yes_no and key in (*_YES, *_NO):
        return yes_no[key in _NO]
    return _SPLIT_VALUES.get(key) or _SPLIT_VALUES.get(_stem(key))


def _key(value: str) -> str:
    return re.sub(r"[^a-z0-9]", "", value.lower())


def _stem(key: str) -> str:
    return re.sub(r"(set|split|data|images)$", "", key)


def _check_one_name_per_split(
    splits: Mapping[str, str | None], values: Sequence[str], numbers: Sequence[int], source: str
) -> None:
    """Checks that no split has two names in one file, as folders must not have.

    Args:
        splits: The split of each value.
        values: As in `read_splits`.
        numbers: As in `read_splits`.
        source: As in `read_splits`.

    Raises:
        UsageError: Two values that differ in more than their spelling mean the same split; the message names the line
            of the second one.
    """
    names: dict[str, tuple[str, str]] = {}
    for value in filter(None, dict.fromkeys(values)):
        split, stem = splits[value] or "", _stem(_key(value))
        first, other = names.setdefault(split, (stem, value))
        if first != stem:
            raise UsageError(
                f"{source}, line {numbers[values.index(value)]}: {value!r} and {other!r} of line "
                f"{numbers[values.index(other)]} are both {split}; give each split one name, and other images none"
            )
