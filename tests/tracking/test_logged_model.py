"""Models in MLflow: logged once with a study's run, registered, and loaded with `mlflow.pyfunc`."""

from __future__ import annotations

import io
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nbt.api import load_task
from nbt.inference.model import load_model
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.tracking import open_store
from nbt.tracking.run_store import RunOwner
from nbt.tracking.study_run_specs import MetricPoint, RunSpec
from nbt.training.export.exported_model import export_model
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext
from nbt.transfer.linearize import FirstOrder

SPEC = RunSpec(
    key="study",
    parent=None,
    name="x",
    status="FINISHED",
    params={},
    metrics=(MetricPoint("test_accuracy", 0, 0.75, 5),),
    tags={},
    started=1,
    ended=9,
)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits", backbone="conv3", weights="none", shots=5)


@pytest.fixture(scope="module")
def folder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a trained model."""
    context = WorkerContext(task)
    for _ in fine_tune(task, TransferSettings(epochs=1), context=context):
        pass
    path = tmp_path_factory.mktemp("trained") / "model"
    export_model(context.model, task, TransferSettings(epochs=1), path)
    return path


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def log(uri: str, folder: Path, register: str | None = None, name: str = "a") -> Any:
    """Logs a model twice, as repeated commands do, and returns its run."""
    for _ in range(2):
        store = open_store(uri, RunOwner(id=name, key="study", experiment="nbt models"))
        store.write(SPEC)
        store.log_model(folder, register)
    experiment = client(uri).get_experiment_by_name("nbt models")
    [run] = client(uri).search_runs([experiment.experiment_id], f"tags.`nbt.study` = '{name}'")
    return run


def loaded(uri: str, model: str) -> Any:
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.pyfunc.load_model(model)


def test_the_model_predicts_arrays_and_the_content_of_files(uri: str, folder: Path, task: Task) -> None:
    run = log(uri, folder)
    [output] = run.outputs.model_outputs
    model = loaded(uri, f"models:/{output.model_id}")
    images = np.asarray(task.images.array)[:3]
    assert images.dtype == np.uint8
    files = []
    for index, image in enumerate(images):
        files.append(folder.parent / f"{index}.png")
        Image.fromarray(image).save(files[-1])
    of_files = load_model(folder).predict(files)
    expected = [(row.label, pytest.approx(row.probability, abs=1e-5)) for row in of_files.itertuples()]
    table = model.predict(images)
    assert list(zip(table["label"], table["probability"], strict=True)) == expected
    table = model.predict([file.read_bytes() for file in files])
    assert list(zip(table["label"], table["probability"], strict=True)) == expected
    assert model.predict(files[0].read_bytes())["label"].tolist() == [expected[0][0]]


def test_the_model_requires_the_distribution_of_nbt(uri: str, folder: Path) -> None:
    import mlflow

    [output] = log(uri, folder, name="requirements").outputs.model_outputs
    mlflow.set_tracking_uri(uri)
    requirements = Path(mlflow.pyfunc.get_model_dependencies(f"models:/{output.model_id}")).read_text().split()
    assert f"nbt-transfer=={version('nbt-transfer')}" in requirements


def test_the_program_of_pytorch_gives_the_same_probabilities(uri: str, folder: Path, task: Task) -> None:
    import mlflow

    [output] = log(uri, folder).outputs.model_outputs
    mlflow.set_tracking_uri(uri)
    classify = mlflow.pytorch.load_model(f"models:/{output.model_id}")
    images = np.asarray(task.images.array)[:3]
    found = classify(torch.from_numpy(images).movedim(3, 1)).detach().numpy()
    assert found == pytest.approx(load_model(folder, "cpu").predict_proba(images), abs=1e-5)


def test_a_linearised_model_has_no_program(uri: str, task: Task, tmp_path: Path) -> None:
    import mlflow

    model = FirstOrder(task.build_model(seed=0))
    export_model(model, task, TransferSettings(epochs=1, linearized=True), tmp_path / "model")
    [output] = log(uri, tmp_path / "model", name="linearised").outputs.model_outputs
    assert len(loaded(uri, f"models:/{output.model_id}").predict(np.zeros((2, 28, 28, 3), np.uint8))) == 2
    with pytest.raises(mlflow.MlflowException, match="pytorch"):
        mlflow.pytorch.load_model(f"models:/{output.model_id}")


def test_a_jpeg_is_read_by_its_content(uri: str, folder: Path, task: Task) -> None:
    [output] = log(uri, folder).outputs.model_outputs
    content = io.BytesIO()
    Image.fromarray(np.asarray(task.images.array)[0]).save(content, "jpeg")
    table = loaded(uri, f"models:/{output.model_id}").predict([content.getvalue(), b"no image"])
    assert table["error"].tolist()[0] == ""
    assert table["error"].tolist()[1] != ""


def test_a_logged_model_is_ready_and_has_the_metrics_of_its_run(uri: str, folder: Path) -> None:
    [output] = log(uri, folder).outputs.model_outputs
    model = client(uri).get_logged_model(output.model_id)
    assert str(model.status) == "READY"
    assert model.params["dataset"] == "digits"
    assert [(metric.key, metric.value) for metric in model.metrics] == [("test_accuracy", 0.75)]


def test_a_model_is_registered_once(uri: str, folder: Path) -> None:
    run = log(uri, folder, register="it's a model", name="b")
    [version] = client(uri).search_model_versions(f"run_id = '{run.info.run_id}'")
    assert (version.name, version.version) == ("it's a model", 1)
    assert loaded(uri, "models:/it's a model/1").predict(np.zeros((1, 28, 28, 3), np.uint8))["label"].notna().all()


def test_another_model_replaces_the_first(uri: str, folder: Path, tmp_path: Path) -> None:
    first = log(uri, folder, name="c").outputs.model_outputs
    shutil.copytree(folder, tmp_path / "model")
    card = tmp_path / "model" / "model.json"
    card.write_text(card.read_text().replace('"dataset": "digits"', '"dataset": "other"'))
    run = log(uri, tmp_path / "model", name="c")
    models = client(uri).search_logged_models([run.info.experiment_id])
    own = [model for model in models if model.source_run_id == run.info.run_id]
    assert [model.params["dataset"] for model in own] == ["other"]
    assert own[0].model_id != first[0].model_id
