"""Folder of a report."""

from __future__ import annotations

import re
from pathlib import Path


def report_folder(out: str | Path, study: str) -> Path:
    """Returns the folder of a study's report, settings and model: a subfolder of `out` named after the study.

    Names that would lead outside `out` (`..`, a path) are replaced by safe ones.
    """
    name = re.sub(r"[\x00-\x1f/\\]", "-", study).strip()
    return Path(out) / ("study" if name in ("", ".", "..") else name)
