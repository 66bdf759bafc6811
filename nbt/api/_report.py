"""Rewriting of the report of a study from the storage."""

from __future__ import annotations

import dataclasses
from pathlib import Path


def report(study: str, storage: str | None = None, out: str | Path = "reports") -> Path:
    """Writes the report of a study from the storage.

    Args:
        study: Name of the study.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        out: Folder of the reports.

    Returns:
        The absolute path of the HTML file.

    Raises:
        UsageError: The study does not exist.
        NbtError: The report cannot be written.
    """
    from nbt.report.study.write import write_report
    from nbt.tuning.storage.studies import read_study, resolve_storage

    record = read_study(resolve_storage(storage), study)
    # The storage may have been moved since the search.
    search = record.search_config().replace(storage=storage, out=out)
    return write_report(dataclasses.replace(record, search=search), Path(out)).resolve()
