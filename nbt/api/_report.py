"""Rewriting of the report of a study from the storage."""

from __future__ import annotations

from pathlib import Path

from nbt.api._command_options import search_options


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
    from nbt.report import write_report
    from nbt.tuning.storage.studies import read_study, resolve_storage

    record = read_study(resolve_storage(storage), study)
    return write_report(record, Path(out), run_options=search_options(storage=storage, out=out)).resolve()
