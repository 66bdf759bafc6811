from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nbt.errors import UsageError
from nbt.inference.export import export_file
from nbt.inference.model import load_model
from nbt.models.backbone_spec import parse_backbone
from nbt.models.source_classes import source_classes
from nbt.models.weights import SourceClassMeans
from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.training.export.exported_model import export_model
from nbt.training.export.model_folder import WEIGHTS_FILE
from tests.source_images import BACKBONE

CONV3, MOBILENET = parse_backbone(BACKBONE), parse_backbone("mobilenet_v2(width_mult=0.35)")


def head(classes: int) -> dict[str, torch.Tensor]:
    return {"head.weight": torch.zeros(classes, 7), "head.bias": torch.zeros(classes)}


@pytest.mark.parametrize(("weights", "reason"), [("none", "are random"), ("w.pth", "have no linear classifier")])
def test_weights_without_a_classifier(weights: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"conv3\(width=8\) {reason}.*leave out --source-data"):
        source_classes(CONV3, weights, None)


def test_a_thousand_classes_are_those_of_imagenet() -> None:
    found = source_classes(MOBILENET, "w.pth", head(1000))
    assert (found.count, found.names[17], found.names[94]) == (1000, "jay", "hummingbird")
    assert source_classes(MOBILENET, "w.pth", head(10)).names == ()


def test_sources_of_nbt_know_their_classes() -> None:
    means = SourceClassMeans(np.zeros((3, 7), dtype=np.float32), np.ones(3, dtype=np.int64), ("a", "b", "c"))
    assert source_classes(CONV3, "default", head(3), means).names == ("a", "b", "c")
    assert source_classes(CONV3, "default", head(4), means).names == ()


def test_an_exported_model_has_its_classes_in_folder_and_file(tmp_path: Path) -> None:
    task = load_task("digits", backbone=BACKBONE, weights="none", shots=6)
    export_model(task.build_model(), task, TransferSettings(), tmp_path / "model")
    weights = tmp_path / "model" / WEIGHTS_FILE
    assert source_classes(CONV3, str(weights), head(5)).names == task.class_names
    assert source_classes(CONV3, str(weights), head(6)).names == (), "a card of other weights"
    export_file(load_model(tmp_path / "model", "cpu"), tmp_path / "file.safetensors", "safetensors")
    (tmp_path / "model.json").write_text('{"class_names": ["of", "another", "model", "beside", "it"]}')
    assert source_classes(CONV3, str(tmp_path / "file.safetensors"), head(5)).names == task.class_names
    for damaged in ("[]", "no JSON", json.dumps({"class_names": 3})):
        (tmp_path / "model" / "model.json").write_text(damaged)
        assert source_classes(CONV3, str(weights), head(5)).names == ()
