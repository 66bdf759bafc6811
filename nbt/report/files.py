"""Files of a report: its folder, and several files that are written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path


def report_folder(out: str | Path, study: str) -> Path:
    """Returns where a study's report, settings and model go: a folder named after the study inside `out`.

    A name that would lead elsewhere (`..`, a path) is made a plain one.
    """
    name = re.sub(r"[\x00-\x1f/\\]", "-", study).strip()
    return Path(out) / ("study" if name in ("", ".", "..") else name)


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
