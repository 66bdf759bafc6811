"""Export to one file: the outputs outside of nbt, metadata, and files that are not written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nbt
from nbt.errors import NbtError, UsageError
from nbt.inference import export as export_module
from nbt.inference.export import FORMATS, check_format, example_images, export_file
from nbt.inference.model import TransferModel, load_model
from nbt.inference.model_card import complete_model_folder
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.exported_model import export_model
from nbt.transfer.linearize import FirstOrder
from tests.inference.conftest import Trained

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="needs the extra onnx",
)


@pytest.fixture(scope="module")
def model(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> TransferModel:
    """A calibrated model with BatchNorm."""
    folder = tmp_path_factory.mktemp("batchnorm") / "model"
    task = nbt.load_task(
        "digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=6, image_size=32, resize="squash"
    )
    export_model(task.build_model(seed=0), task, TransferSettings(), folder)
    complete_model_folder(folder, temperature=0.1)
    return load_model(folder, "cpu")


def expected(model: TransferModel, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 (n, 3, H, H), and the probabilities of the model."""
    images = example_images(model.image_size, n)
    probabilities = model.predict_proba(images)
    assert probabilities.std(axis=1).min() > 1e-3, "uniform outputs would agree with anything"
    return images.numpy(), probabilities


def test_safetensors_is_loaded_as_the_folder(model: TransferModel, tmp_path: Path) -> None:
    result = export_file(model, tmp_path / "a" / "m.safetensors", "safetensors")
    assert (result.path, result.size) == (
        tmp_path / "a" / "m.safetensors",
        (tmp_path / "a" / "m.safetensors").stat().st_size,
    )
    assert result.max_difference <= result.tolerance == 1e-6
    loaded = load_model(result.path, "cpu")
    images, probabilities = expected(model, 3)
    np.testing.assert_allclose(loaded.predict_proba(torch.from_numpy(images)), probabilities, atol=1e-6)
    assert loaded.metadata == model.metadata
    assert loaded.temperature == 0.1


PROGRAM = """
import sys, json, numpy, torch
sys.modules["nbt"] = None  # importing it would fail
card = {"nbt.json": ""}
module = torch.export.load("m.pt2", extra_files=card).module()
for n in (1, 7):
    images = torch.from_numpy(numpy.load(f"{n}.npy"))
    numpy.save(f"{n}-out.npy", module(images).detach().numpy())
print(card["nbt.json"] if isinstance(card["nbt.json"], str) else card["nbt.json"].decode())
"""

GRAPH = """
import sys, json, numpy, onnxruntime
sys.modules["nbt"] = sys.modules["torch"] = None
session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
for n in (1, 7):
    [output] = session.run(["probabilities"], {"images": numpy.load(f"{n}.npy")})
    numpy.save(f"{n}-out.npy", output)
print(session.get_modelmeta().custom_metadata_map["nbt"])
"""


@pytest.mark.parametrize(
    ("name", "script"), [("torch", PROGRAM), pytest.param("onnx", GRAPH, marks=needs_onnx)], ids=["torch", "onnx"]
)
def test_a_file_needs_no_nbt(name: str, script: str, model: TransferModel, tmp_path: Path) -> None:
    file = tmp_path / f"m{FORMATS[name].suffix}"
    result = export_file(model, file, name)
    assert result.max_difference <= result.tolerance
    probabilities = {}
    for n in (1, 7):
        images, probabilities[n] = expected(model, n)
        np.save(tmp_path / f"{n}.npy", images)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    card = json.loads(done.stdout)
    assert card["class_names"] == list(model.class_names)
    assert (card["resize"], card["temperature"], card["image_size"]) == ("squash", 0.1, 32)
    for n, values in probabilities.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{n}-out.npy"), values, atol=result.tolerance)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "1.npy", "7.npy", "1-out.npy", "7-out.npy"}


def test_a_file_with_other_outputs_is_not_written(
    model: TransferModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_other(model: TransferModel, path: Path) -> None:
        state = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
        state["head.bias"] = state["head.bias"] + torch.arange(5)
        save_file(state, path, metadata={"nbt": json.dumps(model.metadata)})

    form = FORMATS["safetensors"]
    changed = export_module.ExportFormat(suffix=form.suffix, tolerance=1e-6, write=write_other, load=form.load)
    monkeypatch.setattr(export_module, "FORMATS", {"safetensors": changed})
    (tmp_path / "m.safetensors").write_text("old")
    with pytest.raises(NbtError, match=r"differ from those of the model by .* nothing was written"):
        export_file(model, tmp_path / "m.safetensors", "safetensors")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.safetensors", "old")]


def test_a_linearised_model_is_exported_as_safetensors_only(trained: Trained, tmp_path: Path) -> None:
    task: Task = trained.task
    linear = FirstOrder(task.build_model(seed=0))
    with torch.no_grad():
        for parameter in linear.model.parameters():
            parameter.add_(0.01)
    export_model(linear, task, TransferSettings(), tmp_path / "model")
    model = load_model(tmp_path / "model", "cpu")
    assert export_file(model, tmp_path / "m.safetensors", "safetensors").max_difference <= 1e-6
    with pytest.raises(UsageError, match=r"cannot be exported as torch.*use --format safetensors"):
        export_file(model, tmp_path / "m.pt2", "torch")
    assert not (tmp_path / "m.pt2").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnx needs onnx, .*: pip install 'nbt-transfer\[onnx\]'"):
        check_format("onnx")
    check_format("torch")
    with pytest.raises(UsageError, match="format 'onxx': did you mean onnx"):
        check_format("onxx")


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_other_files_of_safetensors_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    if content is None:
        save_file({"weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"m\.safetensors is not a model of nbt export"):
        load_model(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "deep/model.safetensors"])
def test_the_model_is_not_overwritten(model: TransferModel, name: str) -> None:
    before = {path: path.read_bytes() for path in model.path.iterdir()}
    with pytest.raises(UsageError, match="file of the model"):
        export_file(model, model.path / name, "safetensors")
    assert {path: path.read_bytes() for path in model.path.iterdir()} == before


def test_the_suffix_of_another_format_is_refused(model: TransferModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.onnx is the suffix of the format onnx; give a name with \.pt2"):
        export_file(model, tmp_path / "model.onnx", "torch")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_the_batch_axis_of_a_graph_is_named(model: TransferModel, tmp_path: Path) -> None:
    import onnxruntime

    export_file(model, tmp_path / "m.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    [given], [returned] = session.get_inputs(), session.get_outputs()
    assert given.shape == ["batch", 3, model.image_size, model.image_size]
    assert returned.shape == ["batch", len(model.class_names)]
