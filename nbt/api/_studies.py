"""Functions on stored studies: their summaries, the report of one, a comparison of several, and MLflow runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._streams import stream_folder
from nbt.errors import UsageError
from nbt.metrics import METRICS
from nbt.paths import check_outside
from nbt.search_config import SearchConfig
from nbt.settings import TransferSettings

if TYPE_CHECKING:
    from nbt.report.comparison.content import StudyComparison
    from nbt.tuning.storage.records import StudyRecord


def studies(storage: str | None = None) -> list[dict[str, Any]]:
    """Returns the fields of `nbt.tuning.storage.records.StudySummary` for every study in the storage.

    `best` is the value of the study's metric, of a log loss the lowest one in nats, and not its score.

    Args:
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
    """
    from nbt.tuning.storage.studies import list_studies, resolve_storage

    return [
        {**dataclasses.asdict(found), "best": None if found.best is None else METRICS[found.metric].value(found.best)}
        for found in list_studies(resolve_storage(storage))
    ]


def report(
    study: str,
    storage: str | None = None,
    out: str | Path = "reports",
    *,
    ignore: str | Sequence[str] | None = None,
    images: bool = True,
) -> Path:
    """Writes the report of a study from the storage.

    Args:
        study: Name of the study.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        out: Folder of the reports.
        ignore: Codes of checks to leave out, such as "NBT203"; those of the last search when None.
        images: Whether the report may show images; False also if the search was told so.

    Returns:
        The absolute path of the HTML file.

    Raises:
        UsageError: The study does not exist, a search of it is running, or no check has one of the codes.
        NbtError: The report cannot be written.
    """
    from nbt.report.study.checks.registry import check_ignored
    from nbt.report.study.write import write_report

    record = _read_stopped(study, storage)
    check_outside("--out", out, record.config.dataset)
    # The storage may have been moved since the search.
    search = record.search_config()
    search = search.replace(storage=storage, out=out, images=images and search.images)
    if ignore is not None:
        search = search.replace(ignore=ignore)
        check_ignored(search.ignore)
    return write_report(dataclasses.replace(record, search=search), Path(out)).resolve()


def compare(
    studies: Sequence[str], storage: str | None = None, out: str | Path = "reports"
) -> tuple[StudyComparison, Path]:
    """Compares studies of the same images, and writes the comparison as HTML and Markdown.

    Args:
        studies: Names of at least two studies; the first is the reference of the others.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        out: Folder of the reports, in which the folder of the comparison is named after the studies.

    Returns:
        The comparison, and the absolute path of the HTML file.

    Raises:
        UsageError: A study does not exist, is named twice, or a search of it is running; there are fewer than two, or
            they are of different data.
        NbtError: The files cannot be written.
    """
    from nbt.report.comparison.content import compare_studies
    from nbt.report.comparison.write import write_comparison

    names = list(studies)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"studies {', '.join(names)}: a comparison needs two or more different studies")
    records = [_read_stopped(name, storage) for name in names]
    comparison = compare_studies(records)
    check_outside("--out", out, records[0].config.dataset)
    return comparison, write_comparison(comparison, Path(out)).resolve()


def _read_stopped(study: str, storage: str | None) -> StudyRecord:
    """Returns the record of a study.

    Raises:
        UsageError: The study does not exist, or a search of it is running.
    """
    from nbt.tuning.storage.studies import check_not_running, read_study, resolve_storage

    url = resolve_storage(storage)
    check_not_running(url, study)
    return read_study(url, study)


def sync(
    study: str, storage: str | None = None, tracking_uri: str | None = None, out: str | Path = "reports"
) -> dict[str, int]:
    """Writes the missing and outdated MLflow runs of a study from the storage, or the run of a stream of tasks.

    The report and the model of the study in `out`, if they are there, are added to the run of the study.

    Args:
        study: Name of the study; or of a stream of `nbt continual`, which is stored in `.nbt/streams/`.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        tracking_uri: URI of the MLflow tracking store; `.nbt/mlflow.db` when None.
        out: Folder of the reports.

    Returns:
        The number of runs that were "written", "updated" and "unchanged".

    Raises:
        UsageError: There is neither a study nor a stream of that name, or the URI is malformed.
        NbtError: The tracking store cannot be written.
    """
    from nbt.tracking import sync as write_runs
    from nbt.tracking.stream_tracker import sync_stream
    from nbt.tuning.storage.stream_folder import read_stream
    from nbt.tuning.storage.studies import read_study, resolve_storage

    stream = read_stream(stream_folder(study))
    if stream is not None:
        return sync_stream(stream, tracking_uri, reports=Path(out).resolve())
    return write_runs(read_study(resolve_storage(storage), study), tracking_uri, reports=Path(out).resolve())


def study_recipe(study: str, storage: str | None = None) -> tuple[TransferSettings, SearchConfig]:
    """Returns the recommended settings of a study, before its final runs those of its best trial, and its options.

    Args:
        study: Name of the study.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.

    Raises:
        UsageError: The study does not exist, has no full-length trial yet, or searches over streams of tasks.
    """
    from nbt.report.study.recommendation import current_recommendation, recommended_task_options
    from nbt.tuning.storage.studies import read_study, resolve_storage

    record = read_study(resolve_storage(storage), study)
    if record.config.scenario is not None:
        file = f"reports/{study}/recommended.yaml"
        raise UsageError(f"study {study} is of streams of tasks; train one with nbt continual --settings {file}")
    recommendation = current_recommendation(record)
    if recommendation is None:
        raise UsageError(f"study {study} recommends nothing yet: none of its trials has run to its full length")
    return recommendation.settings.replace(backbone=""), recommended_task_options(record)
