"""Writes the text files of a folder together, so that no file is ever half-written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def write_all(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Writes files, and removes those whose text is None.

    All texts are written to temporary files before the first file is replaced.

    Args:
        folder: The folder; it is created.
        texts: The text of each file by file name, or None to remove the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporaries: dict[Path, Path] = {}
    try:
        for name, text in texts.items():
            if text is not None:
                temporaries[_write_temporary(folder, name, text)] = folder / name
        for temporary, final in temporaries.items():
            temporary.replace(final)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    for name, text in texts.items():
        if text is None:
            (folder / name).unlink(missing_ok=True)


def _write_temporary(folder: Path, name: str, text: str) -> Path:
    path = folder / f".{name}.{os.getpid()}.tmp"
    try:
        # Texts may quote file names with undecodable bytes, which must not prevent a report.
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
