"""MLflow tracking of streams: one run per stream, curves by task, and failures of the server."""

from __future__ import annotations

import logging
import shutil
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.tracking import TrackingConnection
from nbt.tracking.stream_run_specs import stream_id, stream_run
from nbt.tracking.stream_tracker import StreamTracker
from nbt.tuning.storage.stream_folder import StreamFolder
from nbt.tuning.storage.stream_record import StreamRecord
from tests.sample_stream import BETTER, MATRIX, make_config, make_scores, make_stream, with_settings


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs_of(uri: str) -> list[Any]:
    mlflow = client(uri)
    return list(mlflow.search_runs([experiment.experiment_id for experiment in mlflow.search_experiments()]))


def curve(uri: str, key: str) -> list[tuple[int, float]]:
    [run] = runs_of(uri)
    return [(point.step, point.value) for point in client(uri).get_metric_history(run.info.run_id, key)]


def after(record: StreamRecord, tasks: int) -> StreamRecord:
    return replace(record, result=replace(record.result, scores=record.result.scores[:tasks]))


def test_stream_is_a_run_with_curves_by_task(uri: str) -> None:
    assert StreamTracker(uri).stream_ended(make_stream())
    [run] = runs_of(uri)
    assert (run.info.run_name, run.info.status) == (make_config().name, "FINISHED")
    assert run.info.end_time - run.info.start_time == 60_000
    for task in range(3):
        expected = [(step + 1, MATRIX[step][task]) for step in range(3)]
        assert curve(uri, f"accuracy/task {task + 1:02d}") == expected
    assert curve(uri, "average_accuracy") == [(1, 0.9), (2, 0.75), (3, pytest.approx(0.75))]
    assert curve(uri, "forgetting") == [(1, 0.0), (2, pytest.approx(0.2)), (3, pytest.approx(0.2))]
    assert run.data.metrics["final_average_accuracy"] == pytest.approx(0.75)
    assert run.data.metrics["final_average_accuracy_low"] < 0.75 < run.data.metrics["final_average_accuracy_high"]
    assert run.data.metrics["forward_transfer"] == pytest.approx(0.0)
    params = run.data.params
    assert (params["method"], params["scenario"], params["tasks"], params["factors"]) == ("dlcft", "task", "3", "keep")
    assert (params["optimizer"], params["dataset"], params["seed"]) == ("adamw", "birds", "0")
    assert run.data.tags["class_order"] == "gull, owl, wren, kite, rook, lark"
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["birds"]


def test_class_incremental_streams_have_no_forward_transfer() -> None:
    keys = {point.key for point in stream_run(make_stream(scenario="class")).metrics}
    assert "backward_transfer" in keys
    assert "forward_transfer" not in keys


def test_non_finite_loss_is_left_out() -> None:
    stream = make_stream()
    scores = tuple(replace(score, train_loss=float("inf")) for score in make_scores())
    run = stream_run(replace(stream, result=replace(stream.result, scores=scores)))
    assert "train_loss" not in {point.key for point in run.metrics}


def test_running_stream_grows_in_one_run(uri: str) -> None:
    tracker, record = StreamTracker(uri), make_stream()
    for tasks in (1, 2, 3):
        tracker.log_progress(after(record, tasks))
        [run] = runs_of(uri)
        assert run.info.status == "RUNNING"
        assert len(curve(uri, "accuracy/task 01")) == tasks
    tracker.stream_ended(record)
    [run] = runs_of(uri)
    assert run.info.status == "FINISHED"
    assert len(curve(uri, "average_accuracy")) == 3


def test_stopped_stream_continues_in_its_run(uri: str) -> None:
    record = make_stream()
    StreamTracker(uri).stream_ended(after(record, 1))
    [run] = runs_of(uri)
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "stopped")
    StreamTracker(uri).stream_ended(record)
    [again] = runs_of(uri)
    assert again.info.run_id == run.info.run_id
    assert (again.info.status, again.data.tags["state"]) == ("FINISHED", "complete")


def test_repeated_stream_replaces_its_run(uri: str) -> None:
    StreamTracker(uri).stream_ended(make_stream())
    StreamTracker(uri).stream_ended(make_stream(matrix=BETTER))
    assert curve(uri, "accuracy/task 01") == [(1, 0.9), (2, 0.9), (3, 0.95)]


def test_different_streams_have_separate_runs(uri: str) -> None:
    records = [make_stream("dlcft"), make_stream("ewc"), make_stream(seed=1)]
    records.append(replace(make_stream(), config=with_settings(make_config(), epochs=3)))
    tracker = StreamTracker(uri)
    for record in records:
        tracker.stream_ended(record)
    assert len(runs_of(uri)) == len({stream_id(record) for record in records}) == 4
    assert len({run.info.experiment_id for run in runs_of(uri)}) == 1


def test_files_go_with_the_run(uri: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>")
    tracker, record = StreamTracker(uri), make_stream()
    tracker.add_files(record, [tmp_path / "report.html"])
    tracker.stream_ended(record)
    tracker.add_files(record, [tmp_path / "report.html"])
    [run] = runs_of(uri)
    assert [file.path for file in client(uri).list_artifacts(run.info.run_id)] == ["report.html"]


def test_marker_identifies_store_and_content(uri: str, tmp_path: Path) -> None:
    tracker, record = StreamTracker(uri), make_stream()
    mark = tracker.mark(record)
    assert tracker.is_logged(record, mark)
    assert not tracker.is_logged(record, "")
    assert not tracker.is_logged(make_stream(matrix=BETTER), mark)
    assert not StreamTracker(f"sqlite:///{tmp_path / 'other.db'}").is_logged(record, mark)
    (tmp_path / "mlflow.db").unlink()
    assert not StreamTracker(uri).is_logged(record, mark)


def test_sync_writes_a_stored_stream_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt import api

    monkeypatch.chdir(tmp_path)
    record = make_stream()
    folder = tmp_path / ".nbt" / "streams" / record.config.name
    folder.mkdir(parents=True)
    StreamFolder(folder, record.config).write(record)
    reports = tmp_path / "reports" / record.config.name
    reports.mkdir(parents=True)
    (reports / "report.html").write_text("<p>")
    assert api.sync(record.config.name, None, uri) == {"written": 1, "updated": 0, "unchanged": 0}
    assert api.sync(record.config.name, None, uri) == {"written": 0, "updated": 0, "unchanged": 1}
    [run] = runs_of(uri)
    assert [file.path for file in client(uri).list_artifacts(run.info.run_id)] == ["report.html"]
    with pytest.raises(UsageError):
        api.sync("neither", None, uri)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_unreachable_server_causes_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracker, record = StreamTracker(f"http://me:secret@127.0.0.1:{port}"), make_stream()
    with caplog.at_level(logging.WARNING, logger="nbt"):
        for tasks in (1, 2, 3):
            tracker.log_progress(after(record, tasks))
        assert not tracker.stream_ended(record)
        tracker.add_files(record, [])
    [message] = [record.getMessage() for record in caplog.records]
    assert "the stream continues" in message
    assert "secret" not in message


def test_missing_runs_are_written_when_the_store_is_reachable_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.tracking import stream_tracker

    clock, attempts = Clock(), []
    real = stream_tracker.open_store

    def flaky(*arguments: Any) -> Any:
        attempts.append(clock.now)
        if len(attempts) == 1:
            raise ConnectionRefusedError("connection refused")
        return real(*arguments)

    monkeypatch.setattr(stream_tracker, "open_store", flaky)
    tracker, record = StreamTracker(uri, connection=partial(TrackingConnection, clock=clock)), make_stream()
    tracker.log_progress(after(record, 1))
    clock.now = 30.0
    tracker.log_progress(after(record, 2))
    assert attempts == [0.0]
    clock.now = 70.0
    tracker.log_progress(record)
    assert attempts == [0.0, 70.0]
    assert len(curve(uri, "average_accuracy")) == 3


def test_malformed_uri_is_rejected() -> None:
    with pytest.raises(UsageError, match="neither a server nor a database"):
        StreamTracker("carrier-pigeon://coop")
