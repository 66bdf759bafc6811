"""Names of studies, and the check that a resumed study has the same inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nbt.errors import UsageError
from nbt.tuning.storage.records import StudyConfig

_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")

# The fields in which two runs of a study must agree: the compared field, the field shown in the message, its label, and
# the label of its content for messages in which the shown values are equal. Names and paths may differ if hashes agree.
_IDENTITY_FIELDS = (
    ("data_hash", "dataset", "dataset", "images, labels or split"),
    ("content_hash", "dataset", "dataset", "bytes in its image files"),
    ("backbone", "backbone", "backbone", ""),
    ("weights_hash", "weights", "weights", "values"),
    ("space_hash", "space", "search space", "dimensions"),
    ("image_size", "image_size", "image size", ""),
    ("epochs", "epochs", "epochs", ""),
    ("seed", "seed", "seed", ""),
    ("classes", "classes", "classes", ""),
    ("shots", "shots", "shots", ""),
    ("teacher_hash", "teacher", "teacher", "weights"),
    ("scenario", "scenario", "scenario", ""),
    ("tasks", "tasks", "tasks", ""),
    ("metric", "metric", "metric", ""),
)


def slug(text: str) -> str:
    """Converts text to a part of a file name: letters, digits, ".", "_" and single "-"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")


def default_study_name(dataset: str, backbone: str, space: str) -> str:
    """Returns the default name of a study, e.g. "cub-mobilenet_v2-width_mult-0.35-non_binary".

    Args:
        dataset: Name of a dataset, or path of a folder or file, of which the last part is used.
        backbone: Canonical specification, e.g. "mobilenet_v2(width_mult=0.35)".
        space: Name of a search space, or path of its file.
    """
    parts = (_base_name(dataset), backbone, _base_name(space))
    return "-".join(filter(None, map(slug, parts)))[:100].rstrip("-._") or "study"


def check_study_name(name: str) -> str:
    """Returns the name if it is valid for studies and their folders.

    Raises:
        UsageError: The name is invalid.
    """
    if _NAME_PATTERN.fullmatch(name) is None:
        hint = slug(name)[:100]
        raise UsageError(
            f"study name {name!r}: use at most 120 letters, digits, '.', '_' and '-', starting with a letter or digit"
            + (f"; e.g. {hint}" if hint else "")
        )
    return name


def unused_name(name: str, taken: Iterable[str]) -> str:
    """Returns `name` if it is unused, else the first unused name of `name-2`, `name-3` ..."""
    used = set(taken)
    if name not in used:
        return name
    number = 2
    while f"{name}-{number}" in used:
        number += 1
    return f"{name}-{number}"


def check_same_study(stored: StudyConfig, requested: StudyConfig) -> None:
    """Checks that a study is continued with the same data, model, space and length.

    Args:
        stored: Configuration of the stored study.
        requested: Configuration given by the user.

    Raises:
        UsageError: The inputs differ; the message names each difference and the remedy.
    """
    # A study that was stored without a content hash is recognised by the other fields, and then stores it.
    unknown = None in (stored.content_hash, requested.content_hash)
    differences = [
        _difference(label, content, getattr(stored, shown), getattr(requested, shown))
        for key, shown, label, content in _IDENTITY_FIELDS
        if getattr(stored, key) != getattr(requested, key) and not (unknown and key == "content_hash")
    ]
    if differences:
        raise UsageError(
            f"study {stored.name} exists with other inputs: {'; '.join(differences)} "
            "(give another name with --study NAME, or start a new study with --fresh)"
        )


def _difference(label: str, content: str, before: object, now: object) -> str:
    if before == now:
        return f"{label} {now} has different {content} than before"
    return f"{label} {_format_value(before)} before, {_format_value(now)} now"


def _format_value(value: object) -> str:
    return "not given" if value is None else str(value)


def _base_name(text: str) -> str:
    path = Path(text)
    return path.stem if path.suffix in (".yaml", ".yml", ".csv") else path.name
