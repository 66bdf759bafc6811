"""Names of studies, and the check that a resumed study has the same inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nbt.data.contents import Contents, describe_changes
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
    ("candidate_identity", "backbones_text", "list of backbones", "weights or image sizes"),
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
    ("source_data_hash", "source_data", "source data", "images or classes"),
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


def check_same_study(
    stored: StudyConfig, requested: StudyConfig, before: bytes | None = None, now: bytes | None = None
) -> None:
    """Checks that a study is continued with the same data, model, space and length.

    Args:
        stored: Configuration of the stored study.
        requested: Configuration given by the user.
        before: Contents of the stored study, see `nbt.data.contents`; None where they are not known.
        now: Contents of the task; None where they are not known.

    Raises:
        UsageError: The inputs differ; the message names each difference and the remedy.
    """
    # A study that was stored without a content hash is recognised by the other fields, and then stores it.
    ignored = {"content_hash"} if None in (stored.content_hash, requested.content_hash) else set()
    differences = []
    if (stored.data_hash, stored.content_hash) != (requested.data_hash, requested.content_hash):
        is_same, changes = _compare_images(before, now)
        if is_same or changes:
            ignored |= {"data_hash", "content_hash"}
        if changes:
            differences = [f"dataset {requested.dataset} has other images: {changes}"]
    differences += [
        _difference(label, content, getattr(stored, shown), getattr(requested, shown))
        for key, shown, label, content in _IDENTITY_FIELDS
        if getattr(stored, key) != getattr(requested, key) and key not in ignored
    ]
    if differences:
        raise UsageError(
            f"study {stored.name} exists with other inputs: {'; '.join(differences)} "
            "(give another name with --study NAME, or start a new study with --fresh)"
        )


def _compare_images(before: bytes | None, now: bytes | None) -> tuple[bool, str]:
    """Returns whether images are the same apart from their names, and how they changed; False and "" if not known."""
    if before is None or now is None:
        return False, ""
    try:
        old, new = Contents.from_bytes(before), Contents.from_bytes(now)
    except ValueError:
        return False, ""
    is_same = old.equals_apart_from_names(new)
    return is_same, "" if is_same else describe_changes(old, new)


def _difference(label: str, content: str, before: object, now: object) -> str:
    if before == now:
        return f"{label} {now} has different {content} than before"
    return f"{label} {_format_value(before)} before, {_format_value(now)} now"


def _format_value(value: object) -> str:
    return "not given" if value is None else str(value)


def _base_name(text: str) -> str:
    path = Path(text)
    return path.stem if path.suffix in (".yaml", ".yml", ".csv") else path.name
