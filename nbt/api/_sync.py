"""Update of the MLflow runs of a study from the storage."""

from __future__ import annotations

from pathlib import Path


def sync(
    study: str, storage: str | None = None, tracking_uri: str | None = None, out: str | Path = "reports"
) -> dict[str, int]:
    """Writes the missing and outdated MLflow runs of a study from the storage.

    The report of the study in `out`, if there is one, is added to the run of the study.

    Args:
        study: Name of the study.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        tracking_uri: URI of the MLflow tracking store; `.nbt/mlflow.db` when None.
        out: Folder of the reports.

    Returns:
        The number of runs that were "written", "updated" and "unchanged".

    Raises:
        UsageError: The study does not exist, or the URI is malformed.
        NbtError: The tracking store cannot be written.
    """
    from nbt.tracking import sync as write_runs
    from nbt.tuning.storage.studies import read_study, resolve_storage

    return write_runs(read_study(resolve_storage(storage), study), tracking_uri, reports=Path(out).resolve())
