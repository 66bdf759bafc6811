"""Searches and trainings that measure the source accuracy, with real images, storage and MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

import nbt
from nbt.api import record
from nbt.errors import UsageError
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.source_accuracy import reference_accuracy, source_accuracy
from nbt.tuning.intervals import interval_json
from nbt.tuning.storage.studies import list_studies, read_study, resolve_storage
from tests.source_images import BACKBONE, save_source_images, save_source_weights

QUICK: dict[str, Any] = {
    "budget": 3,
    "epochs": 1,
    "final_seeds": 2,
    "study": "s",
    "heuristics": False,
    "pruner": "none",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and images of a source."""
    folder = tmp_path_factory.mktemp("source")
    save_source_weights(folder / "w.safetensors")
    save_source_images(folder / "images")
    return folder


@pytest.fixture
def task(source: Path) -> Task:
    return nbt.load_task(
        "digits", backbone=BACKBONE, weights=source / "w.safetensors", shots=24, source_data=source / "images"
    )


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_search_measures_every_complete_trial(task: Task, source: Path) -> None:
    result = nbt.search(task, workers=2, **QUICK)
    record = result.record
    reference = reference_accuracy(task, "cpu")
    assert record.source is not None
    assert (record.source.images, record.source.classes, record.source.matching) == (60, 5, "numbers")
    assert record.source.references == {"": reference}
    assert record.config.source_data == record.search_config().source_data == str(source / "images")
    by_origin = {trial.origin: trial for trial in record.trials}
    assert all(trial.source_accuracy is not None for trial in record.trials if trial.state == "complete")
    assert by_origin["anchor: linear probe"].source_accuracy == reference, "its body is frozen"
    assert by_origin["anchor: default recipe"].source_accuracy != reference

    # The tested model is the exported one.
    document = result.to_json()
    recommended = result.model("cpu").module
    assert document["source"]["reference"] == reference
    assert document["source"]["recommended"] == source_accuracy(recommended, task)
    assert document["source"]["baseline"] is not None
    intervals = document["source"]["intervals"]
    assert {name: document["source"][name] for name in intervals} == {n: i["mean"] for n, i in intervals.items()}
    assert all(interval["low"] <= interval["mean"] <= interval["high"] for interval in intervals.values())
    assert read_study(resolve_storage(None), "s").source == record.source
    table = pd.read_csv(result.report_path.parent / "trials.csv")
    assert table["source_accuracy"].tolist() == [trial.source_accuracy for trial in record.trials]
    assert result.trials["source_accuracy"].tolist() == table["source_accuracy"].tolist()
    report = (result.report_path.parent / "report.md").read_text()
    assert "## Source accuracy" in report and f"--source-data {source / 'images'}" in report

    mlflow.set_tracking_uri(f"sqlite:///{Path('.nbt/mlflow.db').absolute()}")
    runs = mlflow.search_runs(search_all_experiments=True)
    logged = runs.dropna(subset=["metrics.source_reference_accuracy"]).iloc[0]
    assert logged["metrics.source_reference_accuracy"] == reference
    assert logged["metrics.source_accuracy"] == document["source"]["recommended"]
    assert logged["metrics.source_baseline_accuracy"] == document["source"]["baseline"]
    trials = runs[runs["tags.kind"] == "trial"] if "tags.kind" in runs else runs[runs["tags.nbt.kind"] == "trial"]
    assert sorted(trials["metrics.source_accuracy"]) == sorted(t.source_accuracy for t in record.trials)


def test_a_study_is_resumed_with_the_same_source_only(task: Task, source: Path, own_folder: Path) -> None:
    options = {"backbone": BACKBONE, "weights": source / "w.safetensors", "shots": 24, "workers": 1, **QUICK}
    plain = nbt.search("digits", **options)
    assert plain.record.source is None and plain.to_json()["source"] is None
    assert "source_accuracy" not in plain.trials
    with pytest.raises(UsageError, match=r"source data not given before, .*images now"):
        nbt.search("digits", source_data=source / "images", **options)

    measured = nbt.search("digits", source_data=source / "images", **{**options, "study": "t"})
    moved = shutil.copytree(source / "images", own_folder / "moved")
    again = nbt.search("digits", source_data=moved, **{**options, "study": "t", "budget": 4})
    assert list(again.record.trials[:3]) == list(measured.record.trials[:3]), "a copy is the same"
    next(moved.rglob("*.png")).unlink()
    with pytest.raises(UsageError, match=r"source data .*moved has different images or classes than before"):
        nbt.search("digits", source_data=moved, **{**options, "study": "t"})


def test_wrong_sources_end_a_search_before_anything_is_written(source: Path, own_folder: Path) -> None:
    options: dict[str, Any] = {"backbone": BACKBONE, "weights": source / "w.safetensors", "shots": 24, **QUICK}
    cases = [
        ({"source_data": "nowhere"}, "source_data nowhere: no such folder"),
        ({"source_data": source / "images", "weights": "none"}, "are random"),
        ({"source_data": source / "images", "scenario": "class", "heuristics": True}, "source_data: .*scenario"),
        ({"source_data": source / "images", "out": source / "images" / "0"}, "is inside the dataset"),
    ]
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            nbt.search("digits", **{**options, **changes})
    assert list_studies(resolve_storage(None)) == []
    assert list(own_folder.iterdir()) == []


def test_backbones_without_a_classifier_are_not_measured(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbones = [
        {"name": BACKBONE, "weights": str(source / "w.safetensors")},
        {"name": "conv3(width=4)", "weights": "none"},
    ]
    options = {**QUICK, "budget": 5, "pruner": "none", "workers": 1}
    result = nbt.search("digits", backbones=backbones, shots=12, source_data=source / "images", **options)
    record = result.record
    assert record.source is not None and record.source.references.keys() == {""}
    measured = {trial.settings.backbone: trial.source_accuracy is not None for trial in record.trials}
    assert measured == {"": True, "conv3(width=4)": False}
    assert "source accuracy of conv3(width=4) with weights none is not measured" in caplog.text
    report = (result.report_path.parent / "report.md").read_text()
    assert "Not applicable to conv3(width=4)" in report
    with pytest.raises(UsageError, match="are random"):
        none = [{**backbone, "weights": "none"} for backbone in backbones]
        nbt.search("digits", backbones=none, source_data=source / "images", **{**options, "study": "u"})


def test_a_training_reports_its_model(task: Task, own_folder: Path) -> None:
    uri = f"sqlite:///{own_folder / 'm.db'}"
    settings = TransferSettings(epochs=2, body_lr=0.05)
    result = nbt.train(task, settings, workers=1, export=Path("model"), tracking_uri=uri, progress=False)
    exported = nbt.load_model("model", "cpu").module
    reference, model = reference_accuracy(task, "cpu"), source_accuracy(exported, task)
    assert result.source is not None
    assert result.to_json()["source"] == {
        "reference": reference,
        "model": model,
        "images": 60,
        "copies": 0,
        "near_copies": 0,
        "intervals": {
            "reference": interval_json(result.source.interval(reference)),
            "model": interval_json(result.source.interval(model)),
        },
    }
    assert f"source accuracy {100 * model:.1f} % [" in repr(result).replace("\N{NO-BREAK SPACE}", " ")
    mlflow.set_tracking_uri(uri)
    [run] = (
        mlflow.search_runs(search_all_experiments=True).dropna(subset=["metrics.source_accuracy"]).to_dict("records")
    )
    assert (run["metrics.source_accuracy"], run["metrics.source_reference_accuracy"]) == (model, reference)


@pytest.mark.parametrize("name", ["streams", "recorded tables"])
def test_functions_without_source_accuracy_refuse_its_images(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^source_data: {name} have no source accuracy; leave it out$"):
        if name == "streams":
            nbt.continual("digits", scenario="data", backbone="conv3(width=8)", source_data=tmp_path)
        else:
            record("digits", trials=4, out=tmp_path / "t.parquet", backbone="conv3(width=8)", source_data=tmp_path)
    assert not list(tmp_path.iterdir())
