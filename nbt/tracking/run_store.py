"""Runs of one owner in an MLflow store: written once, extended, never duplicated."""

from __future__ import annotations

import getpass
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.tracking.study_run_specs import MAX_NAME_LENGTH, STUDY_KEY, MetricPoint, RunSpec, experiment_name, study_id
from nbt.tracking.uris import artifact_location
from nbt.tuning.storage.records import StudyConfig, StudyRecord, TaskConfig

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_MAX_METRICS_PER_BATCH = 800
_MAX_PARAMS_PER_BATCH = 100
_MAX_DIGEST_LENGTH = 36
_STUDY, _KEY, _CONTENT, _PARENT = "nbt.study", "nbt.key", "nbt.content", "mlflow.parentRunId"


@dataclass
class _ExistingRun:
    """A run in MLflow; `points` is read on first use."""

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metric_keys: set[str]
    points: dict[tuple[str, int], float] | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedDataset:
    """A dataset as MLflow shows it.

    Attributes:
        name: Dataset as given by the user.
        digest: Hash of its content.
        location: Folder of a dataset known by name, if it was given.
        image_size: Side of the images in pixels.
        facts: Facts about the dataset; see `nbt.task.summary.dataset_summary`.
    """

    name: str
    digest: str
    location: str | None
    image_size: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunOwner:
    """Owner of runs: a study, a stream (`nbt.tracking.stream_tracker`), or one execution of another command.

    Attributes:
        id: Unique identifier of the owner.
        key: Key of the parent run, which has the dataset, the files and the model.
        experiment: Name of the experiment.
        dataset: The dataset of the runs, if they have one.
    """

    id: str
    key: str
    experiment: str
    dataset: LoggedDataset | None = None


def task_owner(config: TaskConfig, identifier: str, key: str, facts: Mapping[str, Any]) -> RunOwner:
    """Returns the owner of the runs of a study or stream."""
    digest = (isinstance(config, StudyConfig) and config.content_hash) or config.data_hash
    dataset = LoggedDataset(
        name=config.dataset, digest=digest, location=config.data_dir, image_size=config.image_size, facts=facts
    )
    return RunOwner(id=identifier, key=key, experiment=experiment_name(config.dataset), dataset=dataset)


def study_owner(record: StudyRecord) -> RunOwner:
    """Returns the owner of a study's runs."""
    return task_owner(record.config, study_id(record), STUDY_KEY, record.dataset)


class RunStore:
    """Runs of one owner in an MLflow store. All methods may raise any exception of MLflow.

    Args:
        client: MLflow client.
        uri: Tracking URI, for the location of artifacts.
        owner: Owner of the runs.

    Raises:
        Exception: Any exception of MLflow.
    """

    def __init__(self, client: MlflowClient, uri: str, owner: RunOwner) -> None:
        self._client, self._owner = client, owner
        self._experiment = self._open_experiment(owner.experiment, artifact_location(uri))
        self._existing_runs = self._find_runs()

    def write(self, spec: RunSpec) -> str:
        """Writes a run so that it equals the specification; its parent must have been written before.

        Returns:
            "written" for a new run, "updated" or "unchanged".
        """
        existing = self._existing_runs.get(spec.key)
        if existing is None:
            self._create(spec)
            return "written"
        if (
            existing.tags.get(_CONTENT) == spec.content_hash
            and existing.status == spec.status
            and self._has_current_parent(existing, spec)
        ):
            return "unchanged"
        if self._is_extension(existing, spec):
            self._extend(existing, spec)
        else:
            self._create(spec)
            self._client.delete_run(existing.run_id)
            self._reassign_children(existing.run_id, spec.key)
        return "updated"

    def log_files(self, files: Sequence[Path]) -> None:
        """Uploads files to the owner's run and overwrites files of the same name."""
        for file in files:
            self._client.log_artifact(self._existing_runs[self._owner.key].run_id, str(file))

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Writes texts to files of the owner's run, by file name."""
        for name, text in texts.items():
            self._client.log_text(self._existing_runs[self._owner.key].run_id, text, name)

    def log_model(self, folder: Path, register: str | None) -> None:
        """Logs a model folder as the model of the owner's run unless it is there, see `nbt.tracking.logged_model`.

        Args:
            folder: Folder of an exported model.
            register: Name under which the model is registered, or None.
        """
        from nbt.tracking.logged_model import log_model

        log_model(self._client, self._experiment, self._existing_runs[self._owner.key].run_id, folder, register)

    def _open_experiment(self, name: str, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            # Some versions of MLflow show runs first, instead of traces of language models, because of this kind.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts, tags=kind))
            except MlflowException as error:
                experiment = self._client.get_experiment_by_name(name)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:  # created by another process
                    raise
        if experiment.lifecycle_stage == "deleted":
            # The name of a deleted experiment cannot be used again, so the experiment is restored.
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find_runs(self) -> dict[str, _ExistingRun]:
        """Returns the owner's runs by key; of duplicates, which a crash can leave, the complete one is kept."""
        runs: dict[str, _ExistingRun] = {}
        token: str | None = None
        while True:
            query = f"tags.`{_STUDY}` = '{self._owner.id}'"
            page = self._client.search_runs([self._experiment], query, max_results=1000, page_token=token)
            for run in page:
                existing = _read_run(run)
                key = existing.tags.get(_KEY, "")
                other = runs.get(key)
                if other is not None:
                    kept, duplicate = (other, existing) if _CONTENT in other.tags else (existing, other)
                    self._client.delete_run(duplicate.run_id)
                    existing = kept
                runs[key] = existing
            token = page.token
            if not token:
                return runs

    def _create(self, spec: RunSpec) -> None:
        tags = {
            _STUDY: self._owner.id,
            _KEY: spec.key,
            **({} if spec.parent is None else {_PARENT: self._existing_runs[spec.parent].run_id}),
            "mlflow.user": _user_name(),
            "mlflow.source.name": "nbt",
        }
        run = self._client.create_run(self._experiment, start_time=spec.started, tags=tags, run_name=spec.name)
        existing = _ExistingRun(run.info.run_id, spec.name, "RUNNING", {}, dict(tags), set(), points={})
        self._existing_runs[spec.key] = existing
        self._extend(existing, spec)

    def _is_extension(self, existing: _ExistingRun, spec: RunSpec) -> bool:
        """Returns whether the specification contains the run's content, which MLflow could not change otherwise."""
        if any(spec.params.get(name) != value for name, value in existing.params.items()):
            return False
        specified = {(point.key, point.step): point.value for point in spec.metrics}
        return all(
            point in specified and math.isclose(specified[point], value, rel_tol=1e-9, abs_tol=1e-12)
            for point, value in self._points(existing).items()
        )

    def _extend(self, existing: _ExistingRun, spec: RunSpec) -> None:
        """Adds what the run lacks; the hash is written last, so that a run with the hash is complete."""
        if spec.parent is None and _CONTENT not in existing.tags and self._owner.dataset is not None:
            self._log_dataset(existing.run_id, self._owner.dataset)
        stored_points = self._points(existing)
        points = [point for point in spec.metrics if (point.key, point.step) not in stored_points]
        params = {name: value for name, value in spec.params.items() if name not in existing.params}
        tags = {name: value for name, value in spec.tags.items() if existing.tags.get(name) != value}
        if spec.parent is not None:
            tags[_PARENT] = self._existing_runs[spec.parent].run_id
        tags[_CONTENT] = spec.content_hash
        self._log_batches(existing.run_id, points, params, tags)
        existing.params |= params
        existing.tags |= tags
        stored_points.update({(point.key, point.step): point.value for point in points})
        if existing.name != spec.name:
            self._client.update_run(existing.run_id, name=spec.name)
        if spec.ended is not None:
            self._client.set_terminated(existing.run_id, status=spec.status, end_time=spec.ended)
        elif existing.status != spec.status:
            self._client.update_run(existing.run_id, status=spec.status)
        existing.name, existing.status = spec.name, spec.status
        existing.metric_keys |= {key for key, _ in stored_points}
        if spec.parent is not None and spec.ended is not None:
            existing.points = None  # a study has thousands of such runs, which hardly ever change

    def _log_batches(
        self, run_id: str, points: Sequence[MetricPoint], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Writes one batch, or as many as MLflow's limits require; the tags are part of the last one."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in points]
        pairs = [Param(name, value) for name, value in params.items()]
        run_tags = [RunTag(name, value) for name, value in tags.items()]
        while len(metrics) > _MAX_METRICS_PER_BATCH or len(pairs) > _MAX_PARAMS_PER_BATCH:
            self._client.log_batch(run_id, metrics[:_MAX_METRICS_PER_BATCH], pairs[:_MAX_PARAMS_PER_BATCH], [])
            metrics, pairs = metrics[_MAX_METRICS_PER_BATCH:], pairs[_MAX_PARAMS_PER_BATCH:]
        self._client.log_batch(run_id, metrics, pairs, run_tags)

    def _log_dataset(self, run_id: str, logged: LoggedDataset) -> None:
        import numpy as np
        from mlflow.data.schema import TensorDatasetSchema
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.types import Schema, TensorSpec

        size = logged.image_size
        schema = TensorDatasetSchema(
            features=Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3), "images")]),
            targets=Schema([TensorSpec(np.dtype("int64"), (-1,), "labels")]),
        )
        dataset = Dataset(
            name=logged.name[-MAX_NAME_LENGTH:],
            digest=logged.digest[:_MAX_DIGEST_LENGTH],
            source_type="local" if logged.location is not None or os.sep in logged.name else "nbt",
            source=json.dumps({"uri": logged.location or logged.name}),
            schema=json.dumps(schema.to_dict()),
            profile=json.dumps(dict(logged.facts), default=str),
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _points(self, existing: _ExistingRun) -> dict[tuple[str, int], float]:
        if existing.points is None:
            existing.points = {
                (metric.key, metric.step): metric.value
                for key in sorted(existing.metric_keys)
                for metric in self._client.get_metric_history(existing.run_id, key)
            }
        return existing.points

    def _has_current_parent(self, existing: _ExistingRun, spec: RunSpec) -> bool:
        return spec.parent is None or existing.tags.get(_PARENT) == self._existing_runs[spec.parent].run_id

    def _reassign_children(self, replaced_run_id: str, key: str) -> None:
        """Moves the children of a replaced run to the new run with the key."""
        for existing in self._existing_runs.values():
            if existing.tags.get(_PARENT) == replaced_run_id:
                self._client.set_tag(existing.run_id, _PARENT, self._existing_runs[key].run_id)
                existing.tags[_PARENT] = self._existing_runs[key].run_id


def _read_run(run: Any) -> _ExistingRun:
    return _ExistingRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metric_keys=set(run.data.metrics),
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # the user of a container may have no name
        return "unknown"
