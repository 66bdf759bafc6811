"""Source accuracy of frozen, trained, linearised and normalised bodies against independent computations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training import source_accuracy as module
from nbt.training.export.exported_model import export_model, load_module
from nbt.training.fine_tune import FineTuneResult, fine_tune
from nbt.training.source_accuracy import reference_accuracy, source_accuracy
from nbt.transfer.linearize import FirstOrder
from tests.source_images import BACKBONE, save_source_images, save_source_weights

QUICK = TransferSettings(epochs=2, head_lr=0.1, body_lr=0.05, batch_size=16)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("source")
    weights, images = save_source_weights(folder / "w.safetensors"), save_source_images(folder / "images")
    return load_task("digits", backbone=BACKBONE, weights=weights, shots=24, source_data=images)


def train(task: Task, settings: TransferSettings) -> FineTuneResult:
    trial = fine_tune(task, settings)
    while True:
        try:
            next(trial)
        except StopIteration as end:
            return end.value


def by_hand(model: torch.nn.Module, task: Task) -> float:
    """Returns the accuracy from features of all images at once and a matrix product."""
    pixels = torch.from_numpy(np.array(task.source_data.images.array)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(task.mean).view(3, 1, 1), torch.tensor(task.std).view(3, 1, 1)
    with torch.no_grad():
        features = model.eval().features((pixels - mean) / std)
    logits = F.linear(features, task.source_head["head.weight"], task.source_head["head.bias"])
    return float(np.mean(logits.argmax(dim=1).numpy() == task.source_data.labels))


def test_the_reference_is_that_of_the_pretrained_weights(task: Task) -> None:
    reference = reference_accuracy(task, "cpu")
    assert reference == by_hand(task.build_model(), task)
    assert reference > 0.5, "the source's classifier works"


def test_without_source_images_nothing_is_measured(task: Task) -> None:
    plain = dataclasses.replace(task, source_data=None)
    assert reference_accuracy(plain) is None
    assert source_accuracy(plain.build_model(), plain) is None


def test_a_frozen_body_has_the_reference_exactly(task: Task) -> None:
    result = train(task, QUICK.replace(frozen_depth=1.0))
    assert source_accuracy(result.model, task) == reference_accuracy(task, "cpu")


@pytest.mark.parametrize("changes", [{}, {"feature_norm": "batch"}, {"ema": 0.9}, {"transfer_depth": 0.0}])
def test_a_trained_body_has_that_of_the_exported_model(task: Task, changes: dict[str, object], tmp_path: Path) -> None:
    settings = QUICK.replace(**changes)
    result = train(task, settings)
    measured = source_accuracy(result.model, task)
    export_model(result.model, task, result.settings, tmp_path / "model")
    exported, _ = load_module(tmp_path / "model")
    assert measured == by_hand(exported, task)
    assert measured != reference_accuracy(task, "cpu")


def test_a_linearised_body_is_expanded_with_the_classifier_of_the_source(task: Task) -> None:
    result = train(task, QUICK.replace(linearized=True, body_lr=0.01))
    assert isinstance(result.model, FirstOrder)
    measured = source_accuracy(result.model, task)
    # The expansion of the source network, by finite differences.
    base, model = result.model.base, result.model.model
    pixels = torch.from_numpy(np.array(task.source_data.images.array)).permute(0, 3, 1, 2).double() / 255
    images = (pixels - 0.5) / 0.5
    origin, step = base.double().eval(), 1e-4
    moved = {name: tensor.detach().double() for name, tensor in model.named_parameters()}
    weight, bias = (task.source_head[name].double() for name in ("head.weight", "head.bias"))
    with torch.no_grad():
        before = F.linear(origin.features(images), weight, bias)
        for name, tensor in origin.named_parameters():
            tensor += step * (moved[name] - tensor)
        change = (F.linear(origin.features(images), weight, bias) - before) / step
    expected = float(np.mean((before + change).argmax(dim=1).numpy() == task.source_data.labels))
    assert measured == expected


def test_batches_do_not_change_the_result(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = module.augment_and_normalise

    def recorded(pixels: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(pixels))
        return original(pixels, *rest)

    monkeypatch.setattr(module, "augment_and_normalise", recorded)
    whole = reference_accuracy(task, "cpu")
    monkeypatch.setattr(module, "EVALUATION_BATCH_SIZE", 7)
    assert reference_accuracy(task, "cpu") == whole
    assert sizes == [60, *[7] * 8, 4], "the images are evaluated in batches as in validation"
