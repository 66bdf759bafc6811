"""The report of a study, written again from the storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbt.api._command_options import search_options

if TYPE_CHECKING:
    pass


def report(study: str, storage: str | None = None, out: str | Path = "reports") -> Path:
    """Writes a study's report from the storage; returns the HTML file.

    Raises:
        UsageError: There is no such study.
    """
    from nbt.report import write_report
    from nbt.tuning.storage.studies import read_study, resolve_storage

    record = read_study(resolve_storage(storage), study)
    return write_report(record, Path(out), run_options=search_options(storage=storage, out=out)).resolve()
