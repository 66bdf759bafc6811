"""MLflow runs of a study, written again from the storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def sync(
    study: str, storage: str | None = None, tracking_uri: str | None = None, out: str | Path = "reports"
) -> dict[str, int]:
    """Writes a study's MLflow runs from the storage; returns how many were written and how many were there.

    The report in `out`, where there is one, is added to the study's run.

    Raises:
        UsageError: There is no such study, or the URI is none.
        NbtError: The tracking server cannot be reached.
    """
    from nbt.tracking import sync as write_runs
    from nbt.tuning.storage.studies import read_study, resolve_storage

    return write_runs(read_study(resolve_storage(storage), study), tracking_uri, reports=Path(out).resolve())
