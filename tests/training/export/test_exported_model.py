"""Exported models: round trip, and damaged folders."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nbt.errors import UsageError
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.exported_model import export_model, load_module
from nbt.training.export.model_folder import read_card
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
    model, card = load_module(folder)
    for name, tensor in context.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert card["class_names"] == list(task.class_names)
    assert card["settings"] == TransferSettings().to_dict()


def test_the_card_of_a_model_that_decodes_as_before_is_unchanged(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, context, folder = trained
    card = load_module(folder)[1]
    assert card["format"] == 1 and not {"value_ranges", "resize"} & set(card)
    export_model(context.model, dataclasses.replace(task, resize="pad"), TransferSettings(), tmp_path / "model")
    assert load_module(tmp_path / "model")[1]["format"] == 4


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
        load_module(folder)


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
    load_module(folder)
    card["feature_norm"] = norm
    if norm == "target":
        (folder / "weights.safetensors").write_bytes((trained[2] / "weights.safetensors").read_bytes())
    (folder / "model.json").write_text(json.dumps({name: value for name, value in card.items() if value is not None}))
    with pytest.raises(UsageError, match=r"feature.norm|weights\.safetensors"):
        load_module(folder)


def test_an_export_deletes_nothing_but_an_older_export(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, context, _ = trained
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not a model folder.*notes\.txt"):
        export_model(context.model, task, TransferSettings(), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("notes.txt", "mine")]


def test_the_temperature_of_the_card_divides_the_logits(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path
) -> None:
    task, _, folder = trained
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    card = read_card(copy)
    assert "temperature" not in card, "1 is the temperature of a card without one"
    (copy / "model.json").write_text(json.dumps({**card, "temperature": 2.0}))
    inputs = torch.rand(2, 3, task.image_size, task.image_size)
    assert torch.allclose(load_module(copy)[0](inputs), load_module(folder)[0](inputs) / 2.0)


def test_files_have_the_modes_of_other_files(trained: tuple[Task, WorkerContext, Path], tmp_path: Path) -> None:
    task, context, _ = trained
    export_model(context.model, task, TransferSettings(), tmp_path / "model")
    (tmp_path / "other").touch()
    (tmp_path / "folder").mkdir()
    expected = (tmp_path / "other").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "model").iterdir()} == {expected}
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "folder").stat().st_mode


class Code:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


def test_a_deeply_nested_card_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(
        UsageError,
        match=r"is not a model folder of nbt \(model\.json: maximum recursion depth.*; export the model again$",
    ):
        read_card(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '"a text"', '{"class_names": []}'])
def test_a_card_that_is_none_says_what_is_expected(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_card(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'model.json'}: the card is damaged (expected a mapping with format, backbone, image_size, mean, "
        f"std, class_names, settings, got {json.loads(text)!r}); export the model again"
    )


@pytest.mark.parametrize(
    "damage",
    [
        "code",
        "an entry",
        "the classes",
        "another backbone",
        "another shape",
        "temperature",
        "std",
        "resize",
        "value_ranges",
        "a type",
        "huge images",
        "no image",
        "an infinite mean",
        "no class",
        "equal classes",
        "numbers as classes",
        "an unknown backbone",
        "small images",
    ],
)
def test_a_damaged_or_dangerous_folder_gives_one_line_and_runs_nothing(
    trained: tuple[Task, WorkerContext, Path], tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(trained[2], copy)
    card, marker = read_card(copy), tmp_path / "executed"
    message = r"model\.json: the card is damaged"
    if damage == "code":
        (copy / "weights.safetensors").write_bytes(pickle.dumps(Code(marker)))
        message = r"weights\.safetensors: (damaged|the weights cannot be loaded)"
    elif damage == "an entry":
        del card["backbone"]
        message += r" \(backbone\)"
    elif damage == "the classes":
        card["class_names"] = card["class_names"][:-1]
        message = (
            rf"weights\.safetensors does not fit its card, which says .* with {len(card['class_names'])} classes: "
            r"2 of another shape: head\.weight \(expected .*, found .*\), head\.bias \(expected .*\)$"
        )
    elif damage == "another backbone":
        card["backbone"] = "conv4(width=8)"
        message = (
            r"weights\.safetensors does not fit its card, which says conv4\(width=8\) with .* classes: \d+ missing: "
        )
    elif damage in ("temperature", "std", "resize", "value_ranges"):
        card[damage] = {"temperature": 0, "std": [0.5, 0.0, 0.5], "resize": "foo", "value_ranges": [1]}[damage]
        message += rf" \({damage}\)"
    elif damage == "another shape":
        card["mean"] = [0.5]
        message += r" \(mean\)"
    elif damage == "an infinite mean":
        card["mean"] = [0.5, math.inf, 0.5]
        message += r" \(mean\)"
    elif damage in ("no class", "equal classes", "numbers as classes"):
        n_classes = len(card["class_names"])
        names = {"no class": [], "equal classes": ["a"] * n_classes, "numbers as classes": list(range(n_classes))}
        card["class_names"] = names[damage]
        message += r" \(class_names\)"
    elif damage == "an unknown backbone":
        card["backbone"] = "conv9"
        message += r" \(unknown backbone 'conv9'\); export the model again$"
    elif damage == "small images":
        card["image_size"] = 8
        message += r" \(backbone .* does not work with images of 8 px .*\); export the model again$"
    else:
        card["image_size"] = {"a type": "28", "huge images": 10**9, "no image": 0}[damage]
        message += r" \(image_size\)"
    if damage != "code":
        (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match=message) as caught:
        load_module(copy)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
