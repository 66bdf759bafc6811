"""Reports of studies and streams: HTML and Markdown pages for people, tables for programs.

Submodules are imported on first use, because matplotlib and pandas take about a second to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbt.report.files import report_folder
    from nbt.report.study.trials_frame import trials_frame
    from nbt.report.study.write import write_report

__all__ = ["report_folder", "trials_frame", "write_report"]

_LAZY_IMPORTS = {
    "report_folder": "nbt.report.files",
    "trials_frame": "nbt.report.study.trials_frame",
    "write_report": "nbt.report.study.write",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'nbt.report' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
