"""Summaries of the studies in the storage."""

from __future__ import annotations

import dataclasses
from typing import Any


def studies(storage: str | None = None) -> list[dict[str, Any]]:
    """Returns the fields of `nbt.tuning.storage.records.StudySummary` for every study in the storage.

    Args:
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
    """
    from nbt.tuning.storage.studies import list_studies, resolve_storage

    return [dataclasses.asdict(summary) for summary in list_studies(resolve_storage(storage))]
