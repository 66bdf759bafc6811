"""Files of a report: its folder, and several files that are written whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path


def report_folder(out: str | Path, study: str) -> Path:
    """Returns where a study's report, settings and model go: a folder named after the study inside `out`.

    A name that would lead elsewhere (`..`, a path) is made a plain one.
    """
    name = re.sub(r"[\x00-\x1f/\\]", "-", study).strip()
    return Path(out) / ("study" if name in ("", ".", "..") else name)
