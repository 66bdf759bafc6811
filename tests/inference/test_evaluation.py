"""Evaluation of a model on labelled images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import nbt
from nbt.errors import UsageError
from nbt.inference.evaluation import ModelEvaluation
from nbt.inference.model import TransferModel, load_model
from nbt.training.evaluation import evaluate_model
from nbt.training.metrics import Predictions
from nbt.tuning.finals.bootstrap import metric_intervals
from nbt.tuning.intervals import wilson_interval
from tests.inference.conftest import Trained


@pytest.fixture(scope="module")
def model(trained: Trained) -> TransferModel:
    return load_model(trained.folder, "cpu")


@pytest.fixture
def labelled(trained: Trained, tmp_path: Path) -> Path:
    """The test images in class folders, with a broken image and a file that is none."""
    folder = tmp_path / "labelled"
    for row in trained.task.split.test.tolist():
        path = folder / trained.task.class_names[trained.task.labels[row]] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(trained.task.images.array[row])).save(path)
    (folder / "5" / "zz.png").write_bytes(b"not an image")
    (folder / "5" / "notes.txt").write_text("notes")
    return folder


def test_a_task_and_its_images_in_a_folder_give_the_result_of_the_training(
    trained: Trained, model: TransferModel, labelled: Path
) -> None:
    test = evaluate_model(trained.context, trained.context.model, trained.task.split.test)
    assert test.predictions is not None
    for result in (model.evaluate(trained.task), model.evaluate(labelled)):
        assert result.n == len(trained.task.split.test)
        assert result.value == wilson_interval(test.accuracy, result.n)
        assert result.metrics["log_loss"].mean == pytest.approx(test.loss, rel=1e-5)
        assert result.metrics["macro_f1"].mean == pytest.approx(test.metrics["macro_f1"])
        assert set(result.metrics) == set(metric_intervals(test.predictions))
        assert int(result.confusion.to_numpy().trace()) == round(test.accuracy * result.n)
        assert (
            result.confusion.sum(axis=1).tolist() == np.bincount(trained.task.labels[trained.task.split.test]).tolist()
        )
        assert result.missing_classes == []
        assert f'<td style="text-align: left">{100 * test.accuracy:.1f} %</td>' in result._repr_html_()


def test_skipped_files_are_listed(model: TransferModel, labelled: Path) -> None:
    result = model.evaluate(labelled)
    assert [(Path(path).name, reason) for path, reason in result.skipped] == [
        ("zz.png", "damaged, or not an image of a known format"),
        ("notes.txt", "not an image"),
    ]
    frame = result.predictions
    assert len(frame) == result.n + 2
    assert frame["error"].tolist()[-2:] == [reason for _, reason in result.skipped]
    read = frame[frame["error"] == ""]
    assert (read["label"] == [Path(path).parent.name for path in read["path"]]).all()
    assert np.mean(read["label"] == read["predicted"]) == pytest.approx(result.metrics["accuracy"].mean)
    expected = model.predict(read["path"].tolist())
    assert read["predicted"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(read["probability"], expected["probability"].astype(float), atol=1e-5)


def test_json(model: TransferModel, trained: Trained) -> None:
    document = json.loads(json.dumps(nbt.evaluate(model, trained.task, metric="log_loss").to_json()))
    assert document["metric"] == "log_loss"
    assert document["value"] == document["metrics"]["log_loss"]
    assert document["value"]["low"] < document["value"]["value"] < document["value"]["high"]
    assert document["confusion"]["classes"] == list(trained.task.class_names)
    assert np.array(document["confusion"]["matrix"]).sum() == document["images"] == len(trained.task.split.test)


def test_images_of_one_class_have_no_auroc() -> None:
    scores = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    result = ModelEvaluation(
        metric="auroc",
        class_names=("a", "b", "c"),
        results=Predictions(np.array([0, 0]), scores, np.arange(2, dtype=np.int32)),
        paths=("x", "y"),
        errors={},
        passed_over=(),
        part="all",
    )
    assert result.value is None
    assert result.to_json()["value"] is None
    assert repr(result) == "ModelEvaluation(AUROC not defined, 2 images, part 'all')"
    assert result.missing_classes == ["b", "c"]
    assert result.majority == 1.0
    assert result.metrics["accuracy"].mean == 0.5
    assert isinstance(result.classes, pd.DataFrame)
    assert result.classes["name"].tolist() == ["a", "b", "c"]


def test_wrong_arguments(trained: Trained, model: TransferModel, tmp_path: Path) -> None:
    for name in ("5/a.png", "6/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"none of the 2 images can be read; the first: damaged"):
        model.evaluate(tmp_path)
    with pytest.raises(UsageError, match="metric 'acc'"):
        model.evaluate(trained.task, metric="acc")
    with pytest.raises(UsageError, match="part 'some'"):
        model.evaluate(trained.task, part="some")


def test_a_task_with_images_of_another_size_is_refused(model: TransferModel) -> None:
    task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=2, image_size=32)
    with pytest.raises(UsageError, match=r"decoded in another way .*28 px"):
        model.evaluate(task)
