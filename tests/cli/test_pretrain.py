"""`nbt pretrain`: checks before any training, and small source models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nbt.cli.app import run
from nbt.models.backbone_spec import parse_backbone
from nbt.models.weights import load_pretrained_weights
from nbt.training.pretrain.source_trainer import SourceTrainer
from tests.data.pictures import save_classes

DIGITS = ["pretrain", "--dataset", "digits"]
TINY = [*DIGITS, "--backbone", "conv3(width=4)", "--shots", "6"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "sources"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pretrain"], "missing --dataset"),
        ([*DIGITS, "--scheme", "asbb"], "--scheme: 'asbb' is not a choice; did you mean asb"),
        ([*DIGITS, "--zap-every", "15"], "zap period 15 is longer than the training of 15 epochs"),
        ([*DIGITS, "--zap-every", "4", "--epochs", "4"], "longer than the training of 4 epochs"),
        ([*DIGITS, "--scheme", "asb", "--episodes", "3", "--zap-every", "4"], "longer than the training of 3 episodes"),
        ([*DIGITS, "--zap-every", "1", "--zap-fraction", "0"], "zap fraction 0: 0 classes"),
        ([*DIGITS, "--scheme", "asb", "--zap-fraction", "0.5"], "zaps the one class of its episode"),
        ([*DIGITS, "--zap-scale", "row"], "--zap-scale: 'row' is not a choice"),
        ([*DIGITS, "--scheme", "asb", "--epochs", "3"], "--epochs is not an option of --scheme asb"),
        ([*DIGITS, "--episodes", "3"], "--episodes is not an option of --scheme iid"),
        ([*DIGITS, "--inner-lr", "3"], "--inner-lr is not an option of --scheme iid"),
        ([*DIGITS, "--lr", "0"], "lr: 0 is not a rate above 0"),
        ([*DIGITS, "--epochs", "0"], "--epochs: 0"),
        ([*DIGITS, "--classes", "9"], "--classes 9: expected a whole number, 2 ... 5"),
        ([*DIGITS, "--backbone", "conv5"], "conv5"),
        ([*DIGITS, "--out", "w.pth"], "--out w.pth: the name of a weights file ends in .safetensors"),
        (["pretrain", "--dataset", "omniglot-small"], "give --data-dir DIR with DIR/omniglot_small1.zip"),
        ([*TINY, "--scheme", "asb", "--backbone", "mobilenet_v2(width_mult=0.1)"], "normalises over the batch"),
    ],
)
def test_wrong_input_is_reported_before_any_training(
    args: list[str], message: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SourceTrainer, "run", None)
    assert run(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not list(own_cache.glob("*"))


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--epochs", "3", "--zap-every", "1", "--batch-size", "16"], {"scheme": "iid", "gradient_steps": 6}),
        (["--scheme", "asb", "--episodes", "2"], {"scheme": "asb", "zap_period": 0, "gradient_steps": 42}),
        (
            ["--scheme", "meta-asb", "--episodes", "2", "--zap-every", "1", "--zap-scale", "as_released"],
            {"scheme": "meta-asb", "zap_period": 1, "zap_scale": "as_released", "inner_lr": 0.01},
        ),
    ],
)
def test_the_written_weights_can_be_loaded(
    args: list[str], facts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*TINY, *args, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert {name: document[name] for name in facts} == facts
    assert (document["classes"], document["images"], document["image_size"], document["cached"]) == (5, 30, 28, False)
    assert "pretraining on digits source" in captured.err
    loaded = load_pretrained_weights(parse_backbone("conv3(width=4)"), document["weights"], image_size=28)
    assert loaded.source_head is not None
    assert run([*TINY, *args, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == document | {"seconds": 0.0, "cached": True}


def test_the_last_line_of_output_is_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TINY, "--epochs", "3", "--zap-every", "2", "--out", "deep/w.safetensors", "-q"]) == 0
    captured = capsys.readouterr()
    line, path = captured.out.splitlines()
    assert path == "deep/w.safetensors" and Path(path).is_file()
    assert line.startswith("conv3(width=4) at 28 px, iid, zapped every 2 epochs: 3 epochs on 30 images of 5 classes")
    assert captured.err == ""


def test_the_same_command_resumes_an_interrupted_training(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*TINY, "--scheme", "asb", "--episodes", "4", "--zap-every", "1", "--out", "w.safetensors"]
    assert run(args) == 0
    whole = load_pretrained_weights(parse_backbone("conv3(width=4)"), "w.safetensors", image_size=28).w0
    for path in own_cache.iterdir():
        path.unlink()
    real_run, real_round = SourceTrainer.run, SourceTrainer.run_round
    rounds: list[int] = []

    def run_round(self: SourceTrainer) -> None:
        if rounds == [1, 2]:
            rounds.append(-1)
            raise KeyboardInterrupt
        real_round(self)
        rounds.append(self.done)

    def run_often(self: SourceTrainer, **options: Any) -> None:
        real_run(self, **{**options, "checkpoint_seconds": 0.0})

    monkeypatch.setattr(SourceTrainer, "run_round", run_round)
    monkeypatch.setattr(SourceTrainer, "run", run_often)
    assert run(args) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert run(args) == 0
    assert rounds == [1, 2, -1, 3, 4]
    again = load_pretrained_weights(parse_backbone("conv3(width=4)"), "w.safetensors", image_size=28).w0
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_folder_can_be_the_source_without_its_test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        save_classes(tmp_path / "animals" / part, {"cat": count, "dog": count})
    args = ["pretrain", "--dataset", "animals", "--backbone", "conv3(width=4)", "--epochs", "1", "--json"]
    assert run(args) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 8


def test_pretraining_on_the_published_set_and_transfer_to_its_other_classes(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--dataset", "omniglot-small", "--data-dir", str(shared / "data"), "--backbone", "conv3(width=4)"]
    args = ["pretrain", *data, "--classes", "70", "--scheme", "asb", "--episodes", "2", "--zap-every", "1"]
    assert run([*args, "--out", "w.safetensors", "-q"]) == 0
    assert "1400 images of 70 classes" in capsys.readouterr().out
    stream = ["continual", "--scenario", "stream", *data, "--weights", "w.safetensors", "--image-size", "28"]
    assert run([*stream, "--skip-classes", "70", "--classes", "4", "--draws", "2", "--lr", "1e-3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["classes"], document["steps"], len(document["accuracies"])) == (4, 60, 2)
