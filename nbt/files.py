"""Several text files of a folder, each written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def write_all(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Writes files, or removes those whose text is None; either all are ready before the first appears, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    ready: dict[Path, Path] = {}
    try:
        for name, text in texts.items():
            if text is not None:
                ready[_write_temporary(folder, name, text)] = folder / name
        for temporary, final in ready.items():
            temporary.replace(final)
    finally:
        for temporary in ready:
            temporary.unlink(missing_ok=True)
    for name, text in texts.items():
        if text is None:
            (folder / name).unlink(missing_ok=True)


def _write_temporary(folder: Path, name: str, text: str) -> Path:
    path = folder / f".{name}.{os.getpid()}.tmp"
    try:
        # A file name that is not text (undecodable bytes) must not cost the report.
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
