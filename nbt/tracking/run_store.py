"""The runs of one owner in one MLflow store: written once, extended, never doubled."""

from __future__ import annotations

import getpass
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.tracking.study_runs import MAX_NAME_LENGTH, STUDY_KEY, MetricPoint, RunSpec, experiment_name, study_id
from nbt.tracking.uris import artifact_location
from nbt.tuning.storage.records import StudyRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_MAX_METRICS_PER_BATCH = 800
_MAX_PARAMS_PER_BATCH = 100
_STUDY, _KEY, _CONTENT, _PARENT = "nbt.study", "nbt.key", "nbt.content", "mlflow.parentRunId"


@dataclass
class _ExistingRun:
    """A run that MLflow has. `points` is read when it is first needed."""

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metric_keys: set[str]
    points: dict[tuple[str, int], float] | None = None


@dataclass(frozen=True, kw_only=True)
class RunOwner:
    """Whose runs are written: a study's, or a stream's (`nbt.tracking.stream_tracker`).

    Attributes:
        id: Tells its runs from all others.
        experiment: Where they are.
        key: Of the run that the others are children of, and that has dataset and files.
        dataset: As the user named it.
        digest: Hash of its images, labels and split.
        data_dir: Where it is, if the user said so.
        facts: What is known of it.
    """

    id: str
    experiment: str
    key: str
    dataset: str
    digest: str
    data_dir: str | None
    facts: Mapping[str, Any]


def study_owner(record: StudyRecord) -> RunOwner:
    """Returns a study as the owner of its runs."""
    return RunOwner(
        id=study_id(record),
        experiment=experiment_name(record),
        key=STUDY_KEY,
        dataset=record.config.dataset,
        digest=record.config.data_hash,
        data_dir=record.config.data_dir,
        facts=record.dataset,
    )


class RunStore:
    """The runs of one owner in one MLflow store.

    Args:
        client: MLflow's.
        uri: For the location of artifacts.
        owner: Whose.

    Raises:
        Exception: Whatever MLflow raises; so do all methods.
    """

    def __init__(self, client: MlflowClient, uri: str, owner: RunOwner) -> None:
        self._client, self._owner = client, owner
        self._experiment = self._open_experiment(owner.experiment, artifact_location(uri))
        self._existing_runs = self._find_runs()

    def write(self, spec: RunSpec) -> str:
        """Makes MLflow's run say what the spec says; the run of its parent has to be there.

        Returns:
            "written" (it is new), "updated" or "unchanged".
        """
        known = self._existing_runs.get(spec.key)
        if known is None:
            self._create(spec)
            return "written"
        if (
            known.tags.get(_CONTENT) == spec.content
            and known.status == spec.status
            and self._has_current_parent(known, spec)
        ):
            return "unchanged"
        if self._is_extension(known, spec):
            self._extend(known, spec)
        else:
            self._create(spec)
            self._client.delete_run(known.run_id)
            self._reassign_children(known.run_id, spec.key)
        return "updated"

    def log_files(self, files: Sequence[Path]) -> None:
        """Writes files to the owner's run, over those of the same name."""
        for file in files:
            self._client.log_artifact(self._existing_runs[self._owner.key].run_id, str(file))

    def log_profile(self, record: StudyRecord) -> None:
        """Writes the fit profile, where the study has one, to the study's run as `fit.json`."""
        if record.profile is not None:
            from nbt.report.study.write import FIT_FILE, fit_file  # pandas and the templates come with it

            self._client.log_text(self._existing_runs[self._owner.key].run_id, fit_file(record.profile), FIT_FILE)

    def _open_experiment(self, name: str, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            # The kind makes MLflow's pages open on runs, not on traces of language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(name, artifact_location=artifacts, tags=kind))
        if experiment.lifecycle_stage == "deleted":
            # MLflow keeps the name of a deleted experiment taken, so it is the only place to write to.
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find_runs(self) -> dict[str, _ExistingRun]:
        """Returns the owner's runs by key; of two with one key, which a crash can leave, the whole one is kept."""
        found: dict[str, _ExistingRun] = {}
        token: str | None = None
        while True:
            text = f"tags.`{_STUDY}` = '{self._owner.id}'"
            page = self._client.search_runs([self._experiment], text, max_results=1000, page_token=token)
            for run in page:
                known = _read_run(run)
                key = known.tags.get(_KEY, "")
                other = found.get(key)
                if other is not None:
                    keep, spare = (other, known) if _CONTENT in other.tags else (known, other)
                    self._client.delete_run(spare.run_id)
                    known = keep
                found[key] = known
            token = page.token
            if not token:
                return found

    def _create(self, spec: RunSpec) -> None:
        tags = {
            _STUDY: self._owner.id,
            _KEY: spec.key,
            **({} if spec.parent is None else {_PARENT: self._existing_runs[spec.parent].run_id}),
            "mlflow.user": _user_name(),
            "mlflow.source.name": "nbt",
        }
        run = self._client.create_run(self._experiment, start_time=spec.started, tags=tags, run_name=spec.name)
        known = _ExistingRun(run.info.run_id, spec.name, "RUNNING", {}, dict(tags), set(), points={})
        self._existing_runs[spec.key] = known
        self._extend(known, spec)

    def _is_extension(self, known: _ExistingRun, spec: RunSpec) -> bool:
        """Tells whether all that the run says is in the spec: parameters and metrics can be added, not changed."""
        if any(spec.params.get(name) != value for name, value in known.params.items()):
            return False
        wanted = {(point.key, point.step): point.value for point in spec.metrics}
        return all(
            at in wanted and math.isclose(wanted[at], value, rel_tol=1e-9, abs_tol=1e-12)
            for at, value in self._points(known).items()
        )

    def _extend(self, known: _ExistingRun, spec: RunSpec) -> None:
        """Adds what the run lacks; the hash goes last, so that a run that has it has everything."""
        if spec.parent is None and _CONTENT not in known.tags:
            self._log_dataset(known.run_id)
        there = self._points(known)
        points = [point for point in spec.metrics if (point.key, point.step) not in there]
        params = {name: value for name, value in spec.params.items() if name not in known.params}
        tags = {name: value for name, value in spec.tags.items() if known.tags.get(name) != value}
        if spec.parent is not None:
            tags[_PARENT] = self._existing_runs[spec.parent].run_id
        tags[_CONTENT] = spec.content
        self._log_batches(known.run_id, points, params, tags)
        known.params |= params
        known.tags |= tags
        there.update({(point.key, point.step): point.value for point in points})
        if known.name != spec.name:
            self._client.update_run(known.run_id, name=spec.name)
        if spec.ended is not None:
            self._client.set_terminated(known.run_id, status=spec.status, end_time=spec.ended)
        elif known.status != spec.status:
            self._client.update_run(known.run_id, status=spec.status)
        known.name, known.status = spec.name, spec.status

    def _log_batches(
        self, run_id: str, points: Sequence[MetricPoint], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Writes in one batch, or in as few as MLflow's limits allow; the tags with the last."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, point.time, point.step) for point in points]
        pairs = [Param(name, value) for name, value in params.items()]
        marks = [RunTag(name, value) for name, value in tags.items()]
        while len(metrics) > _MAX_METRICS_PER_BATCH or len(pairs) > _MAX_PARAMS_PER_BATCH:
            self._client.log_batch(run_id, metrics[:_MAX_METRICS_PER_BATCH], pairs[:_MAX_PARAMS_PER_BATCH], [])
            metrics, pairs = metrics[_MAX_METRICS_PER_BATCH:], pairs[_MAX_PARAMS_PER_BATCH:]
        self._client.log_batch(run_id, metrics, pairs, marks)

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        owner = self._owner
        local = owner.data_dir is not None or os.sep in owner.dataset
        dataset = Dataset(
            name=owner.dataset[-MAX_NAME_LENGTH:],
            digest=owner.digest[:36],
            source_type="local" if local else "nbt",
            source=json.dumps({"uri": owner.data_dir or owner.dataset}),
            profile=json.dumps(dict(owner.facts), default=str),
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _points(self, known: _ExistingRun) -> dict[tuple[str, int], float]:
        if known.points is None:
            known.points = {
                (metric.key, metric.step): metric.value
                for key in sorted(known.metric_keys)
                for metric in self._client.get_metric_history(known.run_id, key)
            }
        return known.points

    def _has_current_parent(self, known: _ExistingRun, spec: RunSpec) -> bool:
        return spec.parent is None or known.tags.get(_PARENT) == self._existing_runs[spec.parent].run_id

    def _reassign_children(self, old: str, key: str) -> None:
        """Gives the children of a run that was written anew to the new one."""
        for known in self._existing_runs.values():
            if known.tags.get(_PARENT) == old:
                self._client.set_tag(known.run_id, _PARENT, self._existing_runs[key].run_id)
                known.tags[_PARENT] = self._existing_runs[key].run_id


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
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        return "unknown"
