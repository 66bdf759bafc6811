"""Exported models: round trip, predictions, and damaged folders."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nbt.data.image_store import decode_images
from nbt.errors import UsageError
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.evaluation import evaluate_model
from nbt.training.export import exported_model as export_module
from nbt.training.export.exported_model import export_model, load_model, predict, read_card
from nbt.training.export.model_folder import store_temperature
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext
from nbt.transfer.fast import FeatureNorm


@pytest.fixture(scope="module")
def trained(digits: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, WorkerContext, Path]:
    context = WorkerContext(digits)
    for _ in fine_tune(digits, TransferSettings(epochs=8, head_lr=0.1, body_lr=0.05, batch_size=16), context=context):
        pass
    folder = tmp_path_factory.mktemp("export") / "model"
    export_model(context.model, digits, TransferSettings(), folder)
    return digits, context, folder


def write_images(task: Task, folder: Path, index: np.ndarray) -> list[Path]:
    paths = []
    for row in index:
        path = folder / f"{row}.png"
        Image.fromarray(np.asarray(task.images.array[row])).save(path)
        paths.append(path)
    return paths


def test_a_loaded_model_equals_the_exported_one(trained: tuple[Task, WorkerContext, Path]) -> None:
    task, context, folder = trained
    model, card = load_model(folder)
    for name, tensor in context.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert card["class_names"] == list(task.class_names)
    assert card["settings"] == TransferSettings().to_dict()


def test_predictions_of_files_agree_with_evaluation(trained: tuple[Task, WorkerContext, Path], tmp_path: Path) -> None:
    task, context, folder = trained
    index = task.split.val
    predictions = predict(folder, write_images(task, tmp_path, index))
    correct = [p.label == task.class_names[task.labels[row]] for p, row in zip(predictions, index, strict=True)]
    assert np.mean(correct) == pytest.approx(evaluate_model(context, context.model, index).accuracy)
    for prediction in predictions:
        probabilities = [probability for _, probability in prediction.top]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert prediction.top[0] == (prediction.label, prediction.probability)


def test_unreadable_images_are_named_and_the_others_classified(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, _, folder = trained
    good = write_images(task, tmp_path, task.split.val[:2])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    predictions = predict(folder, [good[0], bad, good[1], good[0]])
    assert [bool(p.error) for p in predictions] == [False, True, False, False]
    assert predictions[0] == predictions[3]
    assert predictions[1].path.endswith("bad.png")
    assert predictions[1].error == "damaged, or not an image of a known format"


def test_predictions_use_the_value_ranges_of_the_training(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, context, folder = trained
    files: dict[int, list[Path]] = {8: [], 12: []}
    for row in task.split.val[:6]:
        grey = np.asarray(task.images.array[row])[..., 0]
        for bits, values in ((8, grey), (12, np.rint(grey * (4095 / 255)).astype(np.uint16))):
            files[bits].append(tmp_path / f"{row}-{bits}.png")
            Image.fromarray(values).save(files[bits][-1])
    images = dataclasses.replace(task.images, value_ranges={"uint16": (0.0, 4095.0)})
    export_model(context.model, dataclasses.replace(task, images=images), TransferSettings(), tmp_path / "model")
    assert load_model(tmp_path / "model")[1]["value_ranges"] == {"uint16": [0.0, 4095.0]}
    expected = [prediction.top for prediction in predict(folder, files[8])]
    assert [prediction.top for prediction in predict(tmp_path / "model", files[12])] == expected
    # Without the range they are nearly black.
    assert [prediction.top for prediction in predict(folder, files[12])] != expected


def test_the_card_of_a_model_that_decodes_as_before_is_unchanged(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, context, folder = trained
    card = load_model(folder)[1]
    assert card["format"] == 1 and not {"value_ranges", "resize"} & set(card)
    export_model(context.model, dataclasses.replace(task, resize="pad"), TransferSettings(), tmp_path / "model")
    assert load_model(tmp_path / "model")[1]["format"] == 4


def test_files_are_decoded_in_chunks(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _, folder = trained
    files = write_images(task, tmp_path, task.split.val[:8])
    files[1].write_bytes(b"not an image")
    files += [files[6], files[1]]
    expected = predict(folder, files)
    counts: list[int] = []

    def decode(items: list[Path], *args: Any, **options: Any) -> Any:
        counts.append(len(items))
        return decode_images(items, *args, **options)

    monkeypatch.setattr(export_module, "_DECODE_CHUNK_SIZE", 3)
    monkeypatch.setattr(export_module, "decode_images", decode)
    predictions = predict(folder, files)
    assert counts == [3, 3, 2]
    assert [(p.path, p.label, p.error) for p in predictions] == [(p.path, p.label, p.error) for p in expected]
    assert [p.probability for p in predictions] == pytest.approx([p.probability for p in expected], abs=1e-5)
    assert [bool(p.error) for p in predictions] == [index in (1, 9) for index in range(10)]
    assert predict(folder, []) == []


def test_a_new_export_replaces_the_old_one(trained: tuple[Task, WorkerContext, Path], tmp_path: Path) -> None:
    task, context, _ = trained
    folder = tmp_path / "model"
    export_model(context.model, task, TransferSettings(), folder)
    export_model(context.model, task, TransferSettings(head_lr=0.5), folder)
    assert json.loads((folder / "model.json").read_text())["settings"]["head_lr"] == 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("damage", ["no card", "not JSON", "another format", "no weights", "truncated weights"])
def test_a_damaged_model_folder_is_a_usage_error(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path, damage: str
) -> None:
    task, context, _ = trained
    folder = tmp_path / "model"
    export_model(context.model, task, TransferSettings(), folder)
    card, weights = folder / "model.json", folder / "weights.safetensors"
    if damage == "no card":
        card.unlink()
    elif damage == "not JSON":
        card.write_text("{")
    elif damage == "another format":
        card.write_text(json.dumps({"format": 99}))
    elif damage == "no weights":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"model\.json|weights\.safetensors"):
        load_model(folder)


def test_without_normalised_features_a_folder_has_format_1(trained: tuple[Task, WorkerContext, Path]) -> None:
    _, context, folder = trained
    card = json.loads((folder / "model.json").read_text())
    assert card["format"] == 1
    assert "feature_norm" not in card
    assert sorted(load_file(folder / "weights.safetensors")) == sorted(context.model.state_dict())
    assert not any("feature_norm" in name for name in context.model.state_dict())


@pytest.mark.parametrize("norm", [None, "layer", "target"])
def test_a_card_whose_normalisation_does_not_match_the_weights_is_a_usage_error(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path, norm: str | None
) -> None:
    task, context, _ = trained
    context.model.feature_norm = FeatureNorm("batch", context.model.feature_dim)
    folder = tmp_path / "model"
    try:
        export_model(context.model, task, TransferSettings(), folder)
    finally:
        context.model.feature_norm = torch.nn.Identity()
    card = json.loads((folder / "model.json").read_text())
    assert (card["format"], card["feature_norm"]) == (2, "batch")
    load_model(folder)
    card["feature_norm"] = norm
    if norm == "target":
        (folder / "weights.safetensors").write_bytes((trained[2] / "weights.safetensors").read_bytes())
    (folder / "model.json").write_text(json.dumps({name: value for name, value in card.items() if value is not None}))
    with pytest.raises(UsageError, match=r"feature.norm|weights\.safetensors"):
        load_model(folder)


def test_an_export_deletes_nothing_but_an_older_export(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, context, _ = trained
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not a model folder.*notes\.txt"):
        export_model(context.model, task, TransferSettings(), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("notes.txt", "mine")]


def test_the_temperature_of_the_card_calibrates_the_probabilities(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, _, folder = trained
    files = write_images(task, tmp_path, task.split.val[:8])
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    before = predict(copy, files, top=10)
    store_temperature(copy, 1.0)
    assert "temperature" not in read_card(copy), "1 is the temperature of a card without one"
    store_temperature(copy, 2.0)
    assert read_card(copy)["temperature"] == 2.0
    after = predict(copy, files, top=10)
    for raw, scaled in zip(before, after, strict=True):
        assert raw.label == scaled.label
        probabilities = {name: value**0.5 for name, value in raw.top}
        total = sum(probabilities.values())
        assert dict(scaled.top) == pytest.approx(
            {name: value / total for name, value in probabilities.items()}, rel=1e-3
        )
    inputs = torch.rand(2, 3, task.image_size, task.image_size)
    assert torch.allclose(load_model(copy)[0](inputs), load_model(folder)[0](inputs) / 2.0)
