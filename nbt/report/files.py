"""Folder and files of a report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nbt.errors import NbtError
from nbt.files import write_all


def report_folder(out: str | Path, study: str) -> Path:
    """Returns the folder of a study's report, settings and model: a subfolder of `out` named after the study.

    Names that would lead outside `out` (`..`, a path) are replaced by safe ones.
    """
    name = re.sub(r"[\x00-\x1f/\\]", "-", study).strip()
    return Path(out) / ("study" if name in ("", ".", "..") else name)


def write_report_files(folder: Path, texts: Mapping[str, str | None], *, kind: str = "report") -> None:
    """Writes the files of a report, and removes those whose text is None; see `nbt.files.write_all`.

    Args:
        folder: The folder; it is created.
        texts: The text of each file by file name.
        kind: What the files are, for messages.

    Raises:
        NbtError: The folder cannot be written.
    """
    try:
        write_all(folder, texts)
    except OSError as error:
        raise NbtError(f"{folder}: cannot write the {kind} ({error.strerror or error}); use another --out") from error
