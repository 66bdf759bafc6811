"""What is done with finished searches: predictions, reports, MLflow runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.pipeline.elsewhere import search_options

if TYPE_CHECKING:
    from nbt.training.export import Prediction


def predict(model_dir: Path, images: Sequence[Path]) -> list[Prediction]:
    """Classifies images with an exported model; see `nbt.training.export.predict`."""
    from nbt.training.export import predict as classify

    return classify(model_dir, images)


def report(study: str, storage: str | None = None, out: str | Path = "reports") -> Path:
    """Writes a study's report from the storage; returns the HTML file.

    Raises:
        UsageError: There is no such study.
    """
    from nbt.report import write_report
    from nbt.search.storage import read_study, resolve_storage

    record = read_study(resolve_storage(storage), study)
    return write_report(record, Path(out), run_options=search_options(storage=storage, out=out)).resolve()


def sync(
    study: str, storage: str | None = None, tracking_uri: str | None = None, out: str | Path = "reports"
) -> dict[str, int]:
    """Writes a study's MLflow runs from the storage; returns how many were written and how many were there.

    The report in `out`, where there is one, is added to the study's run.

    Raises:
        UsageError: There is no such study, or the URI is none.
        NbtError: The tracking server cannot be reached.
    """
    from nbt.search.storage import read_study, resolve_storage
    from nbt.tracking import sync as write_runs

    return write_runs(read_study(resolve_storage(storage), study), tracking_uri, reports=Path(out).resolve())


def studies(storage: str | None = None) -> list[dict[str, Any]]:
    """Returns a line for each study in the storage, see `nbt.search.records.StudySummary`."""
    from nbt.search.storage import list_studies, resolve_storage

    return [dataclasses.asdict(summary) for summary in list_studies(resolve_storage(storage))]
