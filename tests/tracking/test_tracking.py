"""MLflow runs on real SQLite files and a real server in a thread, with injected failures."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from socketserver import ThreadingMixIn
from types import SimpleNamespace
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from nbt.errors import NbtError, UsageError
from nbt.fit import FitProfile
from nbt.report.settings_table import stored_flat_settings
from nbt.report.study.write import write_report
from nbt.settings import TransferSettings
from nbt.tracking import (
    RunOwner,
    Tracker,
    default_uri,
    redact_uri,
    resolve_uri,
    run_store,
    study_tracker,
    sync,
)
from nbt.tracking import client as tracking_client
from nbt.tracking.pages import check_pages
from nbt.tracking.study_run_specs import MetricPoint, RunSpec, study_id
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import make_profile, profile_dict
from tests.sample_study import (
    BEST,
    CREATED,
    curve,
    empty_study,
    finals,
    sample_study,
    study_with_priors,
    trial,
    unfinished_study,
    with_config,
)

SECRET = "hunter2"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a database with MLflow's tables, because creating them takes seconds and copying them no time."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    folder = tmp_path / "with space é"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def written(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a database with the runs of the sample study, which its tests only read."""
    folder = tmp_path_factory.mktemp("written")
    shutil.copy(migrated, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    record = sample_study()
    write_report(record, folder / "reports")
    counts = sync(record, uri, reports=folder / "reports")
    assert counts == {"written": 1 + 18 + 13, "updated": 0, "unchanged": 0}
    return uri


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables SQLite's synchronisation with the disk: a commit takes 10 ms otherwise, and a test has hundreds."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("pragma synchronous = off")

    if not event.contains(Engine, "connect", relax):
        event.listen(Engine, "connect", relax)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracking_client.MLFLOW_DEFAULTS:
        monkeypatch.delenv(name, raising=False)


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(uri: str, text: str = "") -> list[Any]:
    mlflow = client(uri)
    return list(mlflow.search_runs([e.experiment_id for e in mlflow.search_experiments()], text, max_results=1000))


def dump(uri: str, record: StudyRecord | None = None) -> dict[str, Any]:
    """Returns the content of all runs (of one study) by key, with the keys of their parents; checks for duplicates."""
    runs = runs_of(uri, "" if record is None else f"tags.`nbt.study` = '{study_id(record)}'")
    keys = {run.info.run_id: run.data.tags["nbt.key"] for run in runs}
    assert len(set(keys.values())) == len(runs), "duplicate run"
    content, metrics = {}, histories(uri)
    for run in runs:
        tags = dict(run.data.tags)
        parent = tags.pop("mlflow.parentRunId", None)
        parent_key = None if parent is None else keys.get(parent, "missing run")
        inputs = [item.dataset.name for item in run.inputs.dataset_inputs]
        info = (run.info.status, run.info.run_name, run.info.start_time, run.info.end_time)
        content[tags["nbt.key"]] = (parent_key, info, run.data.params, tags, metrics.get(run.info.run_id, {}), inputs)
    return content


def histories(uri: str) -> dict[str, dict[str, list[tuple[int, float, int]]]]:
    """Returns run -> metric -> (step, value, timestamp) from the database; checks for duplicate steps."""
    runs: dict[str, dict[str, list[tuple[int, float, int]]]] = {}
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"))
    rows = connection.execute("select run_uuid, key, step, value, timestamp from metrics order by step, timestamp")
    for run, key, step, value, timestamp in rows:
        runs.setdefault(run, {}).setdefault(key, []).append((step, value, timestamp))
    connection.close()
    for metrics in runs.values():
        for key, points in metrics.items():
            assert len({step for step, *_ in points}) == len(points), f"{key} has a duplicate step"
    return runs


def small_study(**changes: Any) -> StudyRecord:
    study = sample_study()
    kept = [t for t in study.trials if t.number in (0, 4, 12)]
    runs = tuple(replace(final, runs=final.runs[:1]) for final in finals()[:2])
    return replace(study, trials=tuple(kept), finals=runs, **changes)


# Tracking URIs


def test_default_uri_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"sqlite:///{tmp_path}/.nbt/mlflow.db"
    assert default_uri() == resolve_uri(None) == expected
    assert resolve_uri("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert list(tmp_path.iterdir()) == []


def test_valid_uris_are_unchanged() -> None:
    for uri in (
        "http://127.0.0.1:5000",
        "https://mlflow.example.org/team",
        "postgresql+psycopg2://u:p@h/db",
        "mysql://h/d",
        "sqlite:////data/x.db",
    ):
        assert resolve_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("", "sqlite:///FILE"),
        ("mlruns", "sqlite:///FILE"),
        ("/data/mlflow.db", "sqlite:///FILE"),
        ("file:///data/mlruns", "known: "),
        ("htp://host:5000", "did you mean http"),
        ("postgres://host/db", "did you mean postgresql"),
        ("http://", "names no host"),
        ("http://host:port", "malformed"),
        ("http://[half", "malformed"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        (f"databricks://me:{SECRET}@host", "known: "),
    ],
)
def test_invalid_uris_are_rejected_before_writing(
    uri: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (resolve_uri, Tracker, lambda uri: sync(sample_study(), uri), check_pages):
        with pytest.raises(UsageError) as caught:
            use(uri)
        assert remedy in str(caught.value)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_passwords_are_redacted() -> None:
    assert redact_uri(f"postgresql://me:{SECRET}@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert redact_uri("http://host:5000/a@b") == "http://host:5000/a@b"


def test_importing_and_checking_loads_no_heavy_packages() -> None:
    code = (
        "import sys; from nbt.tracking import RunOwner, Tracker, resolve_uri; Tracker('http://host:1');"
        "print([m for m in ('mlflow', 'torch', 'pandas', 'jinja2', 'optuna', 'sqlalchemy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# Content of the runs


def test_study_is_a_tree_of_runs(written: str) -> None:
    content = dump(written)
    assert len(content) == 1 + 18 + 13
    parents = {key: entry[0] for key, entry in content.items()}
    assert parents.pop("study") is None
    for key, parent in parents.items():
        assert parent == {"trial": "study", "final": "trial-0012"}[key.split("-")[0]] or "default" in key or "14" in key
    assert parents["final-default recipe-seed-1"] == "trial-0000"
    assert parents["final-trial 14-seed-3"] == "trial-0014"


def test_trial_run_content(written: str) -> None:
    content = dump(written)
    record = next(t for t in sample_study().trials if t.number == 12)
    _, (status, name, start, end), params, tags, history, _ = content["trial-0012"]
    assert name == "012 depth 0.80 frozen 0.35 lr 0.013 sp 0.60 | 0.712"
    assert status == "FINISHED"
    assert record.started is not None
    assert record.finished is not None
    assert (start, end) == (record.started.timestamp() * 1000, record.finished.timestamp() * 1000)
    assert params == {key: str(value) for key, value in stored_flat_settings(BEST).items()}
    assert json.loads(tags["settings"]) == BEST.to_dict()
    assert (tags["state"], tags["origin"], tags["reason"], tags["recommended"]) == ("complete", "sampler", "", "yes")
    assert [(step, value) for step, value, _ in history["val_accuracy"]] == [
        (result.epoch, result.val_accuracy) for result in record.curve
    ]
    assert tags["device"] == "cpu"
    assert {"train_loss", "val_loss", "seconds"} < set(history)
    assert [value for _, value, _ in history["value"]] == [0.712]


def test_states_of_pruned_failed_and_diverged_trials(written: str) -> None:
    content = dump(written)
    states = {key: (content[key][1][0], content[key][3]["state"]) for key in ("trial-0004", "trial-0005", "trial-0007")}
    assert states == {
        "trial-0004": ("KILLED", "pruned"),
        "trial-0005": ("FAILED", "failed"),
        "trial-0007": ("FINISHED", "diverged"),
    }
    assert content["trial-0004"][3]["reason"] == "rank 5 of 6 after 2 epochs"
    assert "out of memory" in content["trial-0005"][3]["reason"]
    assert content["trial-0005"][1][1].endswith("| failed")
    assert content["trial-0007"][4]["train_loss"] == [(1, 6.5, content["trial-0007"][4]["train_loss"][0][2])]
    assert content["trial-0007"][4]["value"][0][1] == 0.0
    assert "value" not in content["trial-0004"][4], "a stopped trial has no value"


def test_all_trials_and_finals_have_the_same_parameters(written: str) -> None:
    keys = {frozenset(entry[2]) for key, entry in dump(written).items() if key != "study"}
    assert keys == {frozenset(stored_flat_settings(TransferSettings()))}


def test_study_run_content(written: str) -> None:
    record = sample_study()
    _, (status, name, *_), params, tags, history, inputs = dump(written)["study"]
    assert (status, name) == ("FINISHED", record.config.name)
    assert params["backbone"] == "mobilenet_v2(width_mult=0.35)"
    assert (tags["budget"], tags["recommended"]) == ("14", "trial 12")
    best = [value for _, value, _ in history["best_val_accuracy"]]
    assert best == sorted(best)
    assert (best[0], best[-1]) == (0.661, 0.712)
    assert history["epochs_spent"][-1][:2] == (18, record.epochs_spent)
    assert history["test_accuracy"][0][1] == 0.695
    assert history["test_baseline_accuracy"][0][1] == 0.651
    assert inputs == ["cub"]


def test_report_files_are_uploaded_to_the_study(written: str) -> None:
    folder = Path(written.removeprefix("sqlite:///")).parent
    run = next(run for run in runs_of(written) if run.data.tags["nbt.key"] == "study")
    files = {item.path: item.file_size for item in client(written).list_artifacts(run.info.run_id)}
    assert set(files) == {"report.html", "report.md", "recommended.yaml", "trials.csv"}
    report = folder / "reports" / sample_study().config.name / "report.html"
    assert files["report.html"] == report.stat().st_size
    # The location is absolute, so that it does not depend on the working directory.
    assert run.info.artifact_uri.startswith((folder / "mlartifacts").as_uri())


def test_measurements_are_files_and_not_charts(uri: str, tmp_path: Path) -> None:
    record = study_with_priors(profile=profile_dict())
    kept = tuple(trial_record for trial_record in record.trials if trial_record.number in (0, 4, 10))
    record = replace(record, trials=kept, finals=())
    assert sync(record, uri)["written"] == 4
    content = dump(uri)
    assert not [key for key in content["study"][4] if key.startswith(("fit", "guide", "skill"))]
    run = next(run for run in runs_of(uri) if run.data.tags["nbt.key"] == "study")
    file = client(uri).download_artifacts(run.info.run_id, "fit.json", str(tmp_path))
    assert FitProfile.from_json(Path(file).read_text()).to_dict() == make_profile().to_dict()
    file = client(uri).download_artifacts(run.info.run_id, "priors.json", str(tmp_path))
    assert json.loads(Path(file).read_text()) == record.prior_diagnostics
    assert content["study"][4]["pruning_false_stop_rate"][0][:2] == (3, 1.0)
    assert content["trial-0010"][3]["control"] == "yes"
    assert [point[:2] for point in content["trial-0004"][4]["pruning_forecast_mean"]] == [(2, 0.5)]
    assert sync(record, uri) == {"written": 0, "updated": 0, "unchanged": 4}
    assert dump(uri) == content


def test_fit_profile_is_written_at_the_start(uri: str) -> None:
    Tracker(uri).study_started(empty_study(profile=profile_dict()))
    [run] = runs_of(uri)
    assert [item.path for item in client(uri).list_artifacts(run.info.run_id)] == ["fit.json"]


def test_live_search_adds_pruning_metrics_to_the_same_run(uri: str) -> None:
    record = study_with_priors()
    tracker = Tracker(uri)
    tracker.study_started(replace(record, trials=(), finals=(), prior_diagnostics={}, recommended=None, test=()))
    (first,) = runs_of(uri)
    for trial_record in record.trials[:5]:
        tracker.trial_finished(trial_record)
    tracker.study_finished(replace(record, trials=record.trials[:5], finals=()))
    study = next(run for run in runs_of(uri) if run.data.tags["nbt.key"] == "study")
    assert study.info.run_id == first.info.run_id
    assert study.data.metrics["pruning_epochs_saved"] == 10.0


def test_runs_of_an_earlier_version_are_updated(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record, current = small_study(), study_tracker.study_runs

    def earlier(*arguments: Any, **options: Any) -> list[RunSpec]:
        """Returns runs as version 0.1 wrote them: with fit measures, and all settings as parameters."""
        specs = current(*arguments, **options)
        measure = MetricPoint("fit/ridge_accuracy", 0, 0.7, 0)
        specs[0] = replace(
            specs[0], metrics=(*specs[0].metrics, measure), tags={**specs[0].tags, "guide/x": "confirmed"}
        )
        return [specs[0], *(replace(spec, params={**spec.params, "old": "1"}) for spec in specs[1:])]

    monkeypatch.setattr(study_tracker, "study_runs", earlier)
    assert sync(record, uri)["written"] == 6
    monkeypatch.undo()
    assert sync(record, uri) == {"written": 0, "updated": 6, "unchanged": 0}
    content = dump(uri)
    assert content["final-trial 12-seed-1"][0] == "trial-0012"
    assert content["trial-0012"][0] == "study"
    assert "fit/ridge_accuracy" not in content["study"][4]
    assert sync(record, uri) == {"written": 0, "updated": 0, "unchanged": 6}


def test_dataset_has_name_digest_source_and_schema(uri: str) -> None:
    record = with_config(small_study(), content_hash="c" * 64, data_dir="/data/cub")
    sync(record, uri)
    run = next(run for run in runs_of(uri) if run.data.tags["nbt.key"] == "study")
    [item] = run.inputs.dataset_inputs
    dataset, size = item.dataset, record.config.image_size
    assert (dataset.name, dataset.digest) == ("cub", "c" * 36)
    assert (dataset.source_type, json.loads(dataset.source)) == ("local", {"uri": "/data/cub"})
    schema = json.loads(dataset.schema)["mlflow_tensorspec"]
    assert json.loads(schema["features"])[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, size, size, 3]}
    assert json.loads(dataset.profile) == dict(record.dataset)


def test_studies_of_one_dataset_share_an_experiment(uri: str) -> None:
    sync(small_study(), uri)
    sync(with_config(small_study(), name="another", space="binary"), uri)
    sync(with_config(small_study(), name="elsewhere", dataset="/data/my pictures"), uri)
    experiments = {e.name for e in client(uri).search_experiments()}
    assert experiments == {"Default", "nbt cub", "nbt my pictures"}
    kinds = [e.tags.get("mlflow.experimentKind") for e in client(uri).search_experiments() if e.name != "Default"]
    assert kinds == ["custom_model_development"] * 2
    assert len(runs_of(uri)) == 3 * 6


def test_long_curves_are_written_in_several_batches(uri: str) -> None:
    long = trial(0, curve=curve(0.7, epochs=700))
    record = empty_study(trials=(long,))
    sync(record, uri)
    history = dump(uri)["trial-0000"][4]
    assert len(history["val_loss"]) == len(history["seconds"]) == 700


def test_hostile_names_are_harmless(uri: str) -> None:
    name = "'; drop table runs; -- <b>é" + "x" * 400
    record = with_config(small_study(), name=name, dataset="/data/" + name)
    assert sync(record, uri)["written"] == 6
    assert sync(record, uri) == {"written": 0, "updated": 0, "unchanged": 6}


# Repeated writing


def test_writing_twice_changes_nothing(written: str) -> None:
    before = dump(written)
    assert sync(sample_study(), written) == {"written": 0, "updated": 0, "unchanged": 32}
    assert dump(written) == before


def test_same_name_in_another_storage_is_another_study(uri: str) -> None:
    first = small_study()
    assert first.created is not None
    sync(first, uri)
    counts = sync(replace(first, created=first.created.replace(minute=0)), uri)
    assert counts["written"] == 6
    assert len(runs_of(uri)) == 12


def test_additions_extend_the_same_runs(uri: str) -> None:
    record = small_study()
    early = replace(record, trials=record.trials[:2], finals=(), recommended=None, test=())
    sync(early, uri)
    ids = {run.data.tags["nbt.key"]: run.info.run_id for run in runs_of(uri)}
    assert dump(uri)["study"][1][0] == "KILLED"
    assert sync(record, uri) == {"written": 3, "updated": 1, "unchanged": 2}
    assert ids.items() <= {run.data.tags["nbt.key"]: run.info.run_id for run in runs_of(uri)}.items()
    later = dump(uri)
    assert later["study"][1][0] == "FINISHED"
    assert len(later["study"][4]["best_val_accuracy"]) == 3


def test_new_recommendation_moves_the_tag(uri: str) -> None:
    record = small_study()
    sync(record, uri)
    assert sync(replace(record, recommended="default recipe"), uri)["updated"] == 3
    content = dump(uri)
    assert (content["trial-0000"][3]["recommended"], content["trial-0012"][3]["recommended"]) == ("yes", "no")


def test_changed_trial_is_replaced_and_keeps_its_children(uri: str) -> None:
    record = small_study()
    sync(record, uri)
    changed = [replace(t, curve=curve(0.72, seed=5)) if t.number == 12 else t for t in record.trials]
    corrected = replace(record, trials=tuple(changed))
    assert sync(corrected, uri)["written"] == 0
    assert sync(corrected, uri) == {"written": 0, "updated": 0, "unchanged": 6}
    content = dump(uri)
    assert content["trial-0012"][1][1].endswith("| 0.720")
    assert content["final-trial 12-seed-1"][0] == "trial-0012"
    assert content["trial-0004"][0] == "study"


def test_deleted_runs_come_back(uri: str) -> None:
    record = small_study()
    sync(record, uri)
    before = dump(uri)
    for run in runs_of(uri):
        if run.data.tags["nbt.key"] in ("study", "trial-0012"):
            client(uri).delete_run(run.info.run_id)
    assert sync(record, uri)["written"] == 2
    assert dump(uri) == before


def test_deleted_experiment_is_restored(uri: str) -> None:
    record = small_study()
    sync(record, uri)
    before = dump(uri)
    experiment = client(uri).get_experiment_by_name("nbt cub")
    client(uri).delete_experiment(experiment.experiment_id)
    sync(record, uri)
    assert dump(uri) == before


class CrashError(Exception):
    """Failure injected into MLflow."""


def crash_at(monkeypatch: pytest.MonkeyPatch, call: int) -> Callable[[], None]:
    """Lets the n-th writing call to MLflow fail after its effect; returns a function that restores the client."""
    from mlflow.tracking import MlflowClient

    counted = 0
    originals = {}

    def breaking(name: str) -> Callable[..., Any]:
        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal counted
            counted += 1
            result = originals[name](self, *arguments, **options)
            if counted == call:
                raise CrashError(name)
            return result

        return method

    for name in ("create_run", "log_batch", "log_inputs", "set_terminated", "update_run", "delete_run", "set_tag"):
        originals[name] = getattr(MlflowClient, name)
        monkeypatch.setattr(MlflowClient, name, breaking(name))

    def repair() -> None:
        for name, original in originals.items():
            monkeypatch.setattr(MlflowClient, name, original)

    return repair


@pytest.mark.slow
def test_sync_repairs_a_crash_at_any_call(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small batches, so that crashes between two batches are covered. A crash before a call equals a crash after the
    # previous one.
    monkeypatch.setattr(run_store, "_MAX_METRICS_PER_BATCH", 30)
    long = next(trial_record for trial_record in sample_study().trials if trial_record.number == 12)
    record = small_study()
    record = replace(record, trials=(record.trials[0], long), finals=record.finals[1:], recommended="default recipe")
    crashed = []
    for call in range(1, 40):
        # Each iteration writes the same runs as a separate study to the same database.
        before = replace(record, created=CREATED + timedelta(days=call))
        after = replace(before, trials=(record.trials[0], replace(long, curve=curve(0.6))))
        repair = crash_at(monkeypatch, call)
        try:
            for version in (before, after):
                sync(version, uri)
        except NbtError as error:
            assert "CrashError" in str(error)
            crashed.append(after)
            continue
        finally:
            repair()
        break
    else:
        pytest.fail("no attempt succeeded")
    expected = timeless(dump(uri, after))
    assert len(crashed) > 12
    for broken in crashed:
        sync(broken, uri)
        assert timeless(dump(uri, broken)) == expected
        assert sync(broken, uri)["unchanged"] == 4


def timeless(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a dump without timestamps and the identifier of the study."""
    result = {}
    for key, (parent, (status, name, *_), params, tags, history, inputs) in content.items():
        values = {metric: [point[:2] for point in points] for metric, points in history.items()}
        result[key] = (parent, status, name, params, {**tags, "nbt.study": ""}, values, inputs)
    return result


# Live searches


def replay(tracker: Tracker, record: StudyRecord) -> None:
    """Calls a tracker as a search of the study does."""
    tracker.study_started(replace(record, trials=(), finals=(), recommended=None, verdict="", test=()))
    for trial_record in record.trials:
        tracker.trial_started(trial_record.number, trial_record.settings, trial_record.origin)
        for result in trial_record.curve:
            tracker.epoch_finished(trial_record.number, result, 0)
        if trial_record.state != "running":
            tracker.trial_finished(trial_record)
    tracker.finals_started(4, ["trial 12"])
    for final in record.finals:
        for run in final.runs:
            tracker.final_run_finished(final.name, run)
    tracker.study_finished(record)


def test_search_writes_the_same_as_sync(uri: str, migrated: Path, tmp_path: Path) -> None:
    record = small_study()
    write_report(record, tmp_path / "reports")
    tracker = Tracker(uri, reports=tmp_path / "reports")
    replay(tracker, record)
    assert not tracker.pending
    live = dump(uri)
    assert sync(record, uri) == {"written": 0, "updated": 0, "unchanged": 6}
    shutil.copy(migrated, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    sync(record, other)
    assert dump(other) == live
    run = next(run for run in runs_of(uri) if run.data.tags["nbt.key"] == "study")
    assert len(client(uri).list_artifacts(run.info.run_id)) == 4


def test_runs_are_written_during_the_search(uri: str) -> None:
    record = small_study()
    tracker = Tracker(uri)
    tracker.study_started(replace(record, trials=(), finals=(), recommended=None))
    assert dump(uri)["study"][1][0] == "RUNNING"
    tracker.trial_finished(record.trials[0])
    content = dump(uri)
    assert set(content) == {"study", "trial-0000"}
    assert content["study"][4]["epochs_spent"][0][:2] == (1, 12.0)
    for trial_record in record.trials[1:]:
        tracker.trial_finished(trial_record)
    tracker.final_run_finished("trial 12", record.finals[0].runs[0])
    assert dump(uri)["final-trial 12-seed-1"][0] == "trial-0012"
    assert dump(uri)["study"][1][0] == "RUNNING"


def test_trial_is_written_in_one_batch(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    tracker = Tracker(uri)
    tracker.study_started(empty_study())
    calls: list[tuple[str, str]] = []

    def counted(name: str, real: Any) -> Callable[..., Any]:
        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            result = real(self, *arguments, **options)
            calls.append((name, result.info.run_id if name == "create_run" else arguments[0]))
            return result

        return method

    for name in ("create_run", "log_batch", "set_terminated", "update_run", "get_metric_history", "search_runs"):
        monkeypatch.setattr(MlflowClient, name, counted(name, getattr(MlflowClient, name)))
    tracker.trial_finished(trial(0, curve=curve(0.6)))
    run_id = calls[0][1]
    study_id = calls[3][1]
    assert calls == [
        ("create_run", run_id),
        ("log_batch", run_id),
        ("set_terminated", run_id),
        ("log_batch", study_id),
    ]


def test_resumed_study_continues_the_same_runs(uri: str) -> None:
    record = small_study()
    first = replace(record, trials=record.trials[:1], finals=(), recommended=None, test=())
    replay(Tracker(uri), first)
    study = next(run.info.run_id for run in runs_of(uri) if run.data.tags["nbt.key"] == "study")
    tracker = Tracker(uri)
    tracker.study_started(first)
    assert dump(uri)["study"][1][0] == "RUNNING"
    for trial_record in record.trials[1:]:
        tracker.trial_finished(trial_record)
    tracker.study_finished(record)
    assert [run.info.run_id for run in runs_of(uri) if run.data.tags["nbt.key"] == "study"] == [study]
    assert sync(record, uri)["unchanged"] == 6


def test_out_of_order_trials_are_not_duplicated(uri: str) -> None:
    record = sample_study(finals=(), recommended=None, test=())
    order = [1, 0, 3, 2, *range(4, 18)]
    listed = list(record.trials)
    times = [t.finished for t in listed]
    moved = [replace(trial_record, finished=times[order.index(i)]) for i, trial_record in enumerate(listed)]
    record = replace(record, trials=tuple(moved))
    tracker = Tracker(uri)
    tracker.study_started(replace(record, trials=()))
    for number in order:
        tracker.trial_finished(moved[number])
    tracker.study_finished(record)
    dump(uri)
    assert sync(record, uri)["unchanged"] == 19
    best = [value for _, value, _ in dump(uri)["study"][4]["best_val_accuracy"]]
    assert best == sorted(best)


def test_progress_of_many_trials_is_written_in_intervals(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_tracker, "_MAX_TRIALS_ALWAYS_WRITTEN", 4)
    record, clock = sample_study(finals=(), recommended=None, test=()), Clock()
    tracker = Tracker(uri, clock=clock)
    tracker.study_started(replace(record, trials=()))

    def steps() -> list[int]:
        return [step for step, _, _ in dump(uri)["study"][4]["epochs_spent"]]

    for trial_record in record.trials[:6]:
        tracker.trial_finished(trial_record)
    assert steps() == [1, 2, 3, 4]
    clock.now += study_tracker._SECONDS_BETWEEN_PROGRESS
    tracker.trial_finished(record.trials[6])
    assert steps() == list(range(1, 8)), "those in between are not lost"
    for trial_record in record.trials[7:]:
        tracker.trial_finished(trial_record)
    tracker.study_finished(record)
    assert sync(record, uri)["unchanged"] == 19


def test_interrupted_search_is_killed(uri: str) -> None:
    record = unfinished_study()
    replay(Tracker(uri), record)
    content = dump(uri)
    assert content["study"][1][0] == "KILLED"
    assert "trial-0018" not in content


# Failures of MLflow


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_unreachable_server_causes_one_warning(closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"http://me:{SECRET}@127.0.0.1:{closed_port}"
    where = {"--storage": "sqlite:///my studies.db", "--tracking-uri": redact_uri(uri)}
    tracker = Tracker(uri, sync_options=where)
    began = time.monotonic()
    with caplog.at_level(logging.INFO, logger="nbt"):
        replay(tracker, sample_study())
    assert time.monotonic() - began < 20
    assert tracker.pending
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    text = warnings[0].getMessage()
    again = shlex.split(text.partition("or by: ")[2])
    assert again == ["nbt", "sync", "cub-mobilenet_v2-non_binary", *(word for pair in where.items() for word in pair)]
    assert SECRET not in text
    assert "\n" not in text
    with pytest.raises(NbtError, match="cannot be written") as caught:
        sync(sample_study(), uri)
    assert not isinstance(caught.value, UsageError)
    assert SECRET not in str(caught.value)


def test_silent_server_fails_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_client, "_PROBE_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tracker = Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        tracker.study_started(empty_study())
        for number in range(50):
            tracker.trial_finished(trial(number))
        assert time.monotonic() - began < 5
        assert tracker.pending


def test_unreachable_server_is_tried_once_per_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, attempts, reported = Clock(), [], []

    def refuse(uri: str, owner: RunOwner) -> Any:
        attempts.append((clock.now, len(reported)))
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(study_tracker, "open_store", refuse)
    tracker = Tracker("http://host:5000", clock=clock)
    record = sample_study()
    tracker.study_started(replace(record, trials=()))
    for trial_record in record.trials:
        clock.now += 25.0
        reported.append(trial_record)
        tracker.trial_finished(trial_record)
    assert attempts == [(0.0, 0), (75.0, 3), (150.0, 6), (225.0, 9), (300.0, 12), (375.0, 15), (450.0, 18)]
    tracker.study_finished(record)
    assert attempts[-1] == (450.0, 18)
    assert len(attempts) == 8
    assert len(caplog.records) == 1


def test_slow_failure_makes_the_pause_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, attempts = Clock(), []

    def hang(uri: str, owner: RunOwner) -> Any:
        attempts.append(clock.now)
        clock.now += 10.0
        raise TimeoutError

    monkeypatch.setattr(study_tracker, "open_store", hang)
    tracker = Tracker("http://host:5000", clock=clock)
    tracker.study_started(empty_study())
    for number in range(40):
        clock.now += 10.0
        tracker.trial_finished(trial(number))
    assert attempts == [0.0, 210.0, 420.0]


def test_failed_write_is_repeated_at_the_next_attempt(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, record = Clock(), small_study()
    tracker = Tracker(uri, clock=clock)
    tracker.study_started(replace(record, trials=(), finals=(), recommended=None))
    repair = crash_at(monkeypatch, 2)
    tracker.trial_finished(record.trials[0])
    repair()
    assert tracker.pending
    tracker.trial_finished(record.trials[1])
    assert tracker.pending
    clock.now += 61.0
    tracker.trial_finished(record.trials[2])
    assert not tracker.pending
    assert set(dump(uri)) == {"study", "trial-0000", "trial-0004", "trial-0012"}
    tracker.study_finished(record)
    assert sync(record, uri)["unchanged"] == 6


def test_folder_that_cannot_be_created_causes_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("a file instead of a folder")
    tracker = Tracker(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    replay(tracker, small_study())
    assert tracker.pending
    assert len(caplog.records) == 1


def test_damaged_database_causes_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    began = time.monotonic()
    replay(tracker, small_study())
    assert time.monotonic() - began < 20, "MLflow itself retries for minutes"
    assert tracker.pending
    assert sum(record.name == "nbt" for record in caplog.records) == 1


def test_missing_driver_is_named() -> None:
    with pytest.raises(NbtError, match="nosuchdriver"):
        sync(small_study(), f"mysql+nosuchdriver://me:{SECRET}@127.0.0.1/db")


def test_unreachable_database_server_fails_within_seconds(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy

    # The check of the port does not need the driver of the database.
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda uri: SimpleNamespace(dispose=lambda: None))
    began = time.monotonic()
    with pytest.raises(NbtError, match="refused") as caught:
        sync(small_study(), f"postgresql://me:{SECRET}@127.0.0.1:{closed_port}/runs")
    assert time.monotonic() - began < 10
    assert SECRET not in str(caught.value)


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Server:
    """MLflow's server in a thread, which can be stopped and restarted on the same port."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self._server = make_server("127.0.0.1", port, app, server_class=Threaded, handler_class=Quiet)
        self.port = self._server.server_port
        self.uri = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def app(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", uri)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.server import app as wsgi
    from mlflow.server import handlers

    monkeypatch.setattr(handlers, "_tracking_store", None)
    yield wsgi
    handlers._tracking_store = None


def test_restarted_server_receives_all_runs(
    app: Any, uri: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, record = Clock(), sample_study()
    server = Server(app)
    tracker = Tracker(server.uri, clock=clock)
    with caplog.at_level(logging.INFO, logger="nbt"):
        tracker.study_started(replace(record, trials=(), finals=(), recommended=None))
        for trial_record in record.trials[:4]:
            tracker.trial_finished(trial_record)
        assert not tracker.pending
        server.stop()
        began = time.monotonic()
        for trial_record in record.trials[4:8]:
            tracker.trial_finished(trial_record)
        assert time.monotonic() - began < 20
        assert tracker.pending
        server = Server(app, server.port)
        for trial_record in record.trials[8:10]:
            tracker.trial_finished(trial_record)
        assert tracker.pending, "not every trial causes an attempt"
        clock.now += 1000.0
        tracker.trial_finished(record.trials[10])
        assert not tracker.pending
        assert len(runs_of(server.uri)) == 12
        server.stop()
        for trial_record in record.trials[11:]:
            tracker.trial_finished(trial_record)
        server = Server(app, server.port)
        tracker.study_finished(record)
    assert not tracker.pending
    assert len(dump(uri)) == 32
    assert sync(record, server.uri) == {"written": 0, "updated": 0, "unchanged": 32}
    server.stop()
    messages = [r.getMessage() for r in caplog.records if r.name == "nbt"]
    assert ["missing runs have been written" in message for message in messages] == [False, True, False, True]
    assert capsys.readouterr().out == "", "stdout is for results"


def test_user_timeouts_are_respected(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    sync(empty_study(), uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


def test_processes_create_a_store_at_the_same_time(tmp_path: Path) -> None:
    """Without a lock, MLflow's migrations of a new file fail in one of them."""
    script = (
        "import sys; from nbt.tracking import RunOwner, open_store; "
        "store = open_store(sys.argv[1], RunOwner(id=sys.argv[2], key='k', experiment='nbt x'))"
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    commands = [[sys.executable, "-c", script, uri, name] for name in "abc"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    results = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert [code for _, code in results] == [0, 0, 0], results


def test_an_experiment_that_another_process_created_in_between_is_used(uri: str, monkeypatch: Any) -> None:
    from mlflow.tracking import MlflowClient

    owner = RunOwner(id="a", key="k", experiment="nbt x")
    first = tracking_client.open_store(uri, owner)
    found, calls = MlflowClient.get_experiment_by_name, []

    def late(client: Any, name: str) -> Any:
        calls.append(name)
        return None if len(calls) == 1 else found(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    assert tracking_client.open_store(uri, owner)._experiment == first._experiment
    assert len(calls) == 2
