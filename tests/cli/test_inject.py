"""`nbt inject`: output, warnings and files, which other commands can load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nbt.cli.app import run
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import load_teacher
from nbt.models.weights import load_pretrained_weights, random_unit_state
from nbt.transfer.injection.weight_injection import inject_weights

STUDENT = "conv3(width=6)"


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    torch.save(random_unit_state(parse_backbone("conv3(width=8)"), 28, 5), tmp_path / "t.pth")
    return "conv3(width=8)=t.pth"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_writes_weights_that_load(teacher: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["inject", "--teacher", teacher, "--student", STUDENT, "--blend", "0.5", "--seed", "2"]
    assert run([*args, "--out", f"w.{suffix}"]) == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    assert "similarity 0.625, coverage 100.0 %" in captured.out
    assert f"--backbone '{STUDENT}' --weights w.{suffix}" in captured.out
    assert "crop + resize" in captured.out
    expected, _ = inject_weights(parse_backbone(STUDENT), 28, load_teacher(teacher), blend=0.5, seed=2)
    loaded = load_pretrained_weights(parse_backbone(STUDENT), f"w.{suffix}", image_size=28).w0
    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())
    assert sorted(path.name for path in Path().iterdir()) == ["t.pth", f"w.{suffix}"]


def test_score_only_needs_no_weights_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "--teacher", "vgg11", "--student", "conv4", "--score-only", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert 0 < document["similarity"] < 0.5
    assert document["file"] is None
    assert document["left"]
    assert "warning: similarity" in captured.err
    assert "is below 0.5" in captured.err
    assert not list(Path().iterdir())


def test_the_default_file_is_named_after_student_and_teacher(teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "--teacher", teacher, "--student", STUDENT, "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["file"] == "conv3_width_6-from-conv3_width_8.safetensors"
    assert Path(document["file"]).is_file()
    assert document["student"] == STUDENT


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--student conv3", "missing --teacher"),
        ("--teacher vgg11", "missing --student"),
        ("--teacher vgg12 --student conv3", "unknown backbone 'vgg12'"),
        ("--teacher vgg11=nowhere.pth --student conv3", "no file nowhere.pth"),
        ("--teacher vgg11 --student convx", "unknown backbone 'convx'"),
        ("--teacher vgg11 --student conv3 --blend 2", "--blend: 2"),
        ("--teacher vgg11 --student conv3 --image-size 3", "--image-size 3: expected 8 ... 1024"),
        (
            "--teacher vgg11 --student conv3 --out w.txt",
            "--out w.txt: expected a name that ends in .safetensors or .pth",
        ),
        ("--teacher vgg11 --student conv3 --out no/w.pth", "the folder no does not exist"),
        ("--teacher vgg11 --student conv3 --score-only --out w.pth", "--out: nothing is written with --score-only"),
    ],
)
def test_wrong_input_is_reported_before_anything_runs(
    args: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inject", *args.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(Path().iterdir())


def test_a_teacher_file_that_does_not_fit_writes_nothing(teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "--teacher", "conv3=t.pth", "--student", "conv3"]) == 2
    assert "t.pth does not fit conv3" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["t.pth"]
