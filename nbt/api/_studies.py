"""What is done with finished searches: predictions, reports, MLflow runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def studies(storage: str | None = None) -> list[dict[str, Any]]:
    """Returns a line for each study in the storage, see `nbt.tuning.storage.records.StudySummary`."""
    from nbt.tuning.storage.studies import list_studies, resolve_storage

    return [dataclasses.asdict(summary) for summary in list_studies(resolve_storage(storage))]
