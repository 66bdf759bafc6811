"""MLflow runs of commands that are neither searches nor streams: `nbt train`, `fit`, `pretrain` and `inject`.

Each execution is one run, with a child run per learning curve. Nothing is stored besides the run, so that a run that
cannot be written is not written later.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.tracking.client import open_store
from nbt.tracking.connection import TrackingConnection
from nbt.tracking.run_store import LoggedDataset, RunOwner
from nbt.tracking.study_run_specs import (
    MAX_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MLFLOW_STATUS,
    MetricPoint,
    RunSpec,
    curve_metrics,
    experiment_name,
)
from nbt.tracking.uris import resolve_uri
from nbt.training.results import EpochResult

if TYPE_CHECKING:
    from nbt.task.task import Task

_KEY = "command"
_CONSEQUENCE = "the result of the command is not affected, and its run is not recorded"


@dataclass(frozen=True, kw_only=True)
class CommandRun:
    """One execution of a command.

    Attributes:
        command: Name of the command, such as "train".
        name: Display name of the run.
        params: What was run; None values are left out.
        metrics: Results; None values are left out.
        curves: Learning curves by the name of their child run.
        dataset: The dataset, if there is one.
        experiment: Name of the experiment; that of the dataset when None.
        files: Files to upload.
        texts: Texts to upload, by file name.
        model: Folder of the trained model, if there is one.
        seconds: Duration of the command up to now.
        state: "complete", or "interrupted" or "failed" for a command that did not end normally.
        reason: Why it did not, else "".
        unfinished: Names of the curves that it did not complete.
    """

    command: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    curves: Mapping[str, Sequence[EpochResult]] = field(default_factory=dict)
    dataset: LoggedDataset | None = None
    experiment: str | None = None
    files: Sequence[Path] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    model: Path | None = None
    seconds: float = 0.0
    state: str = "complete"
    reason: str = ""
    unfinished: Collection[str] = ()


def dataset_of(task: Task) -> LoggedDataset:
    """Returns the dataset of a loaded task."""
    from nbt.task.summary import dataset_summary

    return LoggedDataset(
        name=task.dataset,
        digest=task.content_hash or task.fingerprint,
        location=None if task.data_dir is None else str(task.data_dir),
        image_size=task.image_size,
        facts=dataset_summary(task),
    )


def track_command(run: CommandRun, uri: str | None, *, register: str | None = None) -> bool:
    """Writes the run of a command; a failure causes one warning.

    Args:
        run: The finished or stopped command.
        uri: See `resolve_uri`.
        register: Name under which the model is registered, or None.

    Returns:
        Whether the run was written.

    Raises:
        UsageError: The URI is malformed.
    """
    uri = resolve_uri(uri)
    experiment = run.experiment or ("nbt" if run.dataset is None else experiment_name(run.dataset.name))
    owner = RunOwner(id=uuid.uuid4().hex[:16], key=_KEY, experiment=experiment, dataset=run.dataset)

    def write() -> None:
        store = open_store(uri, owner)
        for spec in command_specs(run, round(1000 * time.time())):
            store.write(spec)
        store.log_files(run.files)
        store.log_texts(run.texts)
        if run.model is not None:
            store.log_model(run.model, register)

    return TrackingConnection(uri).attempt(write, _CONSEQUENCE)


def command_specs(run: CommandRun, now: int) -> list[RunSpec]:
    """Returns the run of a command and its children.

    Args:
        run: The finished or stopped command.
        now: The present time in ms since 1970.
    """
    started = now - round(1000 * run.seconds)
    parent = RunSpec(
        key=_KEY,
        parent=None,
        name=run.name[:MAX_NAME_LENGTH],
        status=MLFLOW_STATUS[run.state],
        params={name: str(value) for name, value in run.params.items() if value is not None},
        metrics=tuple(
            MetricPoint(name, 0, value, now)
            for name, value in run.metrics.items()
            if value is not None and math.isfinite(value)
        ),
        tags={
            "kind": run.command,
            "state": run.state,
            **({"reason": run.reason[:MAX_TAG_LENGTH]} if run.reason else {}),
        },
        started=started,
        ended=now,
    )
    children = []
    for name, curve in run.curves.items():
        points, last = curve_metrics(curve, started)
        state = run.state if name in run.unfinished else "complete"
        children.append(
            RunSpec(
                key=f"{_KEY}-{name}",
                parent=_KEY,
                name=name[:MAX_NAME_LENGTH],
                status=MLFLOW_STATUS[state],
                params={},
                metrics=tuple(points),
                tags={"kind": f"{run.command} run", "state": state},
                started=started,
                ended=last,
            )
        )
    return [parent, *children]
