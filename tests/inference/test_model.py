"""TransferModel: predictions, probabilities and features of files and of images in memory."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nbt
from nbt.errors import UsageError
from nbt.inference import model as model_module
from nbt.inference.model import TransferModel, load_model
from nbt.inference.model_card import complete_model_folder
from nbt.settings import TransferSettings
from nbt.training.evaluation import evaluate_model
from nbt.training.export.exported_model import export_model
from tests.inference.conftest import SETTINGS, Trained
from tests.training.export.test_exported_model import write_images


@pytest.fixture(scope="module")
def model(trained: Trained) -> TransferModel:
    return load_model(trained.folder, "cpu")


def test_attributes(trained: Trained, model: TransferModel) -> None:
    assert model.class_names == trained.task.class_names
    assert (model.image_size, model.temperature, model.settings) == (28, 1.0, SETTINGS)
    assert model.metadata["backbone"] == "conv3(width=8)"
    assert repr(model) == "TransferModel(conv3(width=8), 5 classes, 28 px, cpu)"
    assert nbt.TransferModel is TransferModel
    tested = {**model.metadata, "test": {"metrics": {"log_loss": {"value": 0.5}, "accuracy": {"value": 0.75}}}}
    html = TransferModel(model.module, {**tested, "dataset": "<b>"}, model.path, model.device)._repr_html_()
    assert "0.500 nats" in html and "75.0 %" in html and "&lt;b&gt;" in html and "conv3(width=8)" in html
    assert "75.0 %" not in model._repr_html_()


def test_predictions_of_files_agree_with_evaluation(trained: Trained, model: TransferModel, tmp_path: Path) -> None:
    task, index = trained.task, trained.task.split.val
    frame = model.predict(write_images(task, tmp_path, index))
    correct = frame["label"] == np.array(task.class_names)[task.labels[index]]
    assert np.mean(correct) == pytest.approx(evaluate_model(trained.context, trained.context.model, index).accuracy)
    probabilities = frame[["probability", "probability_2", "probability_3", "probability_4", "probability_5"]]
    assert (np.diff(probabilities.to_numpy(), axis=1) <= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert (frame["error"] == "").all()


def test_probabilities_are_those_of_the_evaluation(trained: Trained, model: TransferModel) -> None:
    task, index = trained.task, trained.task.split.val
    expected = evaluate_model(trained.context, trained.context.model, index).predictions
    assert expected is not None
    pixels = np.asarray(task.images.array[index])
    probabilities = model.predict_proba(pixels)
    assert probabilities.shape == (len(index), 5)
    np.testing.assert_allclose(probabilities, np.exp(expected.log_probabilities), atol=1e-6)
    frame = model.predict(pixels, top=1)
    assert list(frame) == ["path", "label", "probability", "error"]
    np.testing.assert_allclose(frame["probability"], probabilities.max(axis=1), atol=1e-6)


def test_features_give_the_probabilities_through_the_head(trained: Trained, model: TransferModel) -> None:
    pixels = np.asarray(trained.task.images.array[:5])
    features = model.embed(pixels)
    head = trained.context.model.head
    assert features.shape == (5, head.in_features)
    logits = head(torch.from_numpy(features))
    np.testing.assert_allclose(logits.softmax(dim=1).detach().numpy(), model.predict_proba(pixels), atol=1e-5)


def test_the_torch_module_maps_pixels_to_probabilities(trained: Trained, model: TransferModel) -> None:
    pixels = np.asarray(trained.task.images.array[:5])
    module = model.to_torch()
    assert not module.training
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for inputs in (images, images.float()):
        with torch.no_grad():
            np.testing.assert_allclose(module(inputs).numpy(), model.predict_proba(pixels), atol=1e-6)


def test_images_of_other_sizes_are_resized(model: TransferModel) -> None:
    images = [np.zeros((40, 30, 3), dtype=np.uint8), np.zeros((28, 28, 3), dtype=np.uint8)]
    first, second = model.predict_proba(images)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_skipped_files_are_listed_with_the_reason(
    trained: Trained, model: TransferModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [first, second] = write_images(trained.task, tmp_path, trained.task.split.val[:2])
    (tmp_path / "zz.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("notes")
    frame = model.predict(tmp_path)
    names = [Path(path).name for path in frame["path"]]
    assert sorted(names[:2]) == sorted([first.name, second.name])
    assert names[2:] == ["zz.png", "notes.txt"]
    assert list(frame["error"]) == ["", "", "damaged, or not an image of a known format", "not an image"]
    assert frame["label"].isna().tolist() == frame["probability"].isna().tolist() == [False, False, True, True]
    with caplog.at_level(logging.WARNING, logger="nbt"):
        probabilities = model.predict_proba(tmp_path)
    assert np.isnan(probabilities).all(axis=1).tolist() == [False, False, True]
    assert "1 of 3 images cannot be read" in caplog.text and "zz.png" in caplog.text


def test_images_are_classified_in_batches(
    trained: Trained, model: TransferModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.asarray(trained.task.images.array[:8])
    expected = model.predict(pixels)
    sizes: list[int] = []
    apply = TransferModel._apply
    monkeypatch.setattr(model_module, "BATCH_SIZE", 3)
    monkeypatch.setattr(
        TransferModel, "_apply", lambda self, function, batch: sizes.append(len(batch)) or apply(self, function, batch)
    )
    calls: list[tuple[str, int, int]] = []
    frame = model.predict(pixels, progress=lambda *call: calls.append(call))
    assert sizes == [3, 3, 2]
    assert calls == [("classifying images", done, 8) for done in (3, 6, 8)]
    assert list(frame["label"]) == list(expected["label"])
    np.testing.assert_allclose(frame["probability"], expected["probability"], atol=1e-5)


def test_the_last_batch_may_end_with_an_unreadable_file(trained: Trained, model: TransferModel, tmp_path: Path) -> None:
    files = [*write_images(trained.task, tmp_path, trained.task.split.val[:2]), tmp_path / "bad.png"]
    files[-1].write_bytes(b"")
    frame = model.predict(files)
    assert frame["label"].isna().tolist() == [False, False, True]


def test_no_images_give_an_empty_frame(model: TransferModel) -> None:
    assert len(model.predict([])) == 0
    assert model.predict_proba([]).shape == (0, 5)


def test_predictions_use_the_value_ranges_of_the_training(trained: Trained, tmp_path: Path) -> None:
    task = trained.task
    files: dict[int, list[Path]] = {8: [], 12: []}
    for row in task.split.val[:6]:
        grey = np.asarray(task.images.array[row])[..., 0]
        for bits, values in ((8, grey), (12, np.rint(grey * (4095 / 255)).astype(np.uint16))):
            files[bits].append(tmp_path / f"{row}-{bits}.png")
            Image.fromarray(values).save(files[bits][-1])
    images = dataclasses.replace(task.images, value_ranges={"uint16": (0.0, 4095.0)})
    export_model(
        trained.context.model, dataclasses.replace(task, images=images), TransferSettings(), tmp_path / "model"
    )
    without, with_range = load_model(trained.folder), load_model(tmp_path / "model")
    assert with_range.metadata["value_ranges"] == {"uint16": [0.0, 4095.0]}
    expected = without.predict_proba(files[8])
    np.testing.assert_array_equal(with_range.predict_proba(files[12]), expected)
    # Without the range they are nearly black.
    assert not np.allclose(without.predict_proba(files[12]), expected)


def test_the_temperature_calibrates_the_probabilities(trained: Trained, model: TransferModel, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "model")
    complete_model_folder(tmp_path / "model", temperature=2.0)
    calibrated = load_model(tmp_path / "model")
    pixels = np.asarray(trained.task.images.array[:8])
    assert calibrated.temperature == 2.0
    roots = np.sqrt(model.predict_proba(pixels))
    np.testing.assert_allclose(calibrated.predict_proba(pixels), roots / roots.sum(axis=1, keepdims=True), rtol=1e-3)


def test_the_shortcut_accepts_a_folder_or_a_model(trained: Trained, model: TransferModel) -> None:
    pixels = np.asarray(trained.task.images.array[:3])
    for given in (trained.folder, str(trained.folder), model):
        assert nbt.predict(given, pixels, top=2).equals(model.predict(pixels, top=2))


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "nowhere: no such folder"), (".", "not a model folder")])
def test_wrong_folders(folder: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        nbt.load_model(folder)


def test_wrong_arguments(model: TransferModel, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        load_model(trained.folder, "tpu:x")
    with pytest.raises(UsageError, match="top: 0"):
        model.predict([], top=0)
    for name in ("unknown", "class"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(UsageError, match="leave these images out with ignore_unknown=True") as error:
        model.evaluate(tmp_path)
    assert str(error.value.command_line_text).endswith("--ignore-unknown")
