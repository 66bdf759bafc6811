"""MLflow runs of commands that are neither searches nor streams."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbt import api
from nbt.errors import NbtError, UsageError
from nbt.settings import TransferSettings
from nbt.tracking.command_tracker import CommandRun, track_command
from tests.sample_study import curve

RUN = CommandRun(
    command="inject",
    name="a from b",
    params={"seed": 0, "image_size": None},
    metrics={"similarity": 0.7, "coverage": None, "loss": math.inf},
    experiment="nbt injections",
    texts={"injection.json": "{}"},
    seconds=2.0,
)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs(uri: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))
    return sorted(found, key=lambda run: run.data.tags["nbt.key"])


def test_an_execution_is_a_run_with_its_files(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    assert track_command(RUN, uri)
    assert track_command(RUN, uri), "another execution is another run"
    first, second = runs(uri)
    assert first.data.params == {"seed": "0"}
    assert first.data.metrics == {"similarity": 0.7}
    assert (first.info.status, first.data.tags["kind"]) == ("FINISHED", "inject")
    assert first.info.end_time - first.info.start_time == 2000
    files = MlflowClient(tracking_uri=uri).list_artifacts(second.info.run_id)
    assert [file.path for file in files] == ["injection.json"]


def test_learning_curves_are_child_runs(uri: str) -> None:
    track_command(replace(RUN, curves={"seed 3": curve(0.7)}), uri)
    parent, child = runs(uri)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics["val_accuracy"] == pytest.approx(0.7)


def test_an_unreachable_server_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="nbt"):
        assert not track_command(RUN, "http://me:secret@127.0.0.1:9")
    [message] = [record.getMessage() for record in caplog.records]
    assert "not recorded" in message
    assert "secret" not in message and "\n" not in message


def test_a_training_is_recorded_with_dataset_results_and_model(uri: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "conv3(width=8)", "weights": "none", "shots": 9}
    settings, model = TransferSettings(epochs=1), tmp_path / "model"
    result = api.train("digits", settings, export=model, tracking_uri=uri, register="digits", **options)
    parent, child = runs(uri)
    assert parent.data.metrics["test_accuracy"] == result.test.accuracy.mean
    assert parent.data.metrics["final_val_accuracy"] == result.validation.mean
    assert parent.data.metrics["test_majority_accuracy"] > 0
    assert parent.data.params["backbone"] == "conv3(width=8)"
    assert parent.data.params["body_lr"] == str(result.settings.body_lr)
    assert child.info.run_name == "seed 0"
    [item] = parent.inputs.dataset_inputs
    assert item.dataset.name == "digits"
    import mlflow

    mlflow.set_tracking_uri(uri)
    images = api.load_task("digits", **options).images.array[:2]
    table = mlflow.pyfunc.load_model("models:/digits/1").predict(images)
    assert set(table["label"]) <= {str(digit) for digit in range(10)}


def test_a_model_that_is_not_exported_cannot_be_registered(uri: str) -> None:
    with pytest.raises(UsageError, match="add --export"):
        api.train("digits", register="digits", tracking_uri=uri)


def test_fit_profiles_are_recorded(uri: str) -> None:
    [profile] = api.fit("digits", [("conv3(width=8)", "none")], samples=60, tracking_uri=uri, shots=9)
    [run] = runs(uri)
    assert run.data.tags["kind"] == "fit"
    assert run.data.metrics["ridge_accuracy"] == profile.to_dict()["scalars"]["ridge_accuracy"]
    assert run.data.params["backbone"] == "conv3(width=8)"


@pytest.mark.parametrize(
    ("error", "status", "state"),
    [(KeyboardInterrupt(), "KILLED", "interrupted"), (NbtError("the disk is full"), "FAILED", "failed")],
)
def test_a_stopped_training_is_recorded_with_its_epochs(
    uri: str, error: BaseException, status: str, state: str
) -> None:
    settings, calls = TransferSettings(epochs=3), []

    def stop(what: str, done: int, total: int) -> None:
        if what == "training with seed 1":
            calls.append(done)
            if len(calls) == 2:
                raise error

    options: dict[str, Any] = {"backbone": "conv3(width=8)", "weights": "none", "shots": 9, "workers": 1}
    with pytest.raises(type(error)):
        api.train("digits", settings, seeds=2, tracking_uri=uri, progress=stop, **options)
    parent, *children = runs(uri)
    assert (parent.info.status, parent.data.tags["state"]) == (status, state)
    assert parent.data.tags["reason"] in ("interrupted by the user", "the disk is full")
    assert parent.data.params["epochs"] == "3"
    assert "test_accuracy" not in parent.data.metrics
    first, second = sorted(children, key=lambda run: run.info.run_name)
    assert (first.info.run_name, first.info.status) == ("seed 0", "FINISHED")
    assert (second.info.run_name, second.info.status) == ("seed 1", status)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    steps = [[m.step for m in client.get_metric_history(r.info.run_id, "val_accuracy")] for r in (first, second)]
    assert steps[0] == [1, 2, 3] and len(steps[1]) in (1, 2)
