"""`nbt inject`: output, warnings and files, which other commands can load."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from nbt.cli.app import run
from nbt.fit.profile_builder import profile_fit
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import load_teacher
from nbt.models.weights import load_pretrained_weights, random_unit_state
from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.training.worker.context import WorkerContext
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
    assert sorted(path.name for path in Path().iterdir()) == [".nbt", "t.pth", f"w.{suffix}"]


def test_other_commands_re_estimate_the_marked_statistics(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A linear probe of the file is as accurate as that of an injection inside a search."""
    teacher = f"mobilenet_v2={shared / 'weights/mobilenet_v2-imagenet.pth'}"
    student, options = "mobilenet_v2(width_mult=0.75)", {"image_size": 64, "shots": 40}
    assert run(["inject", "--teacher", teacher, "--student", student, "--out", "w.pth", "--image-size", "64"]) == 0
    assert "re-estimate on target images: 44 normalisation layers" in capsys.readouterr().out
    textures = shared / "data/dtd10"
    task = load_task(textures, backbone=student, weights="w.pth", **options)
    in_search = load_task(textures, backbone=student, weights="none", teacher=teacher, **options)

    context, other = WorkerContext(in_search, device="cpu"), WorkerContext(task, device="cpu")
    injected, _ = context.prepare_model(TransferSettings(init="inject", teacher=teacher), 0)
    from_file, _ = other.prepare_model(TransferSettings(), 0)
    w0 = injected.unit_state_dict()
    assert all(torch.equal(tensor, w0[name]) for name, tensor in from_file.unit_state_dict().items())

    file, memory, as_written = (
        profile_fit(variant, cache=False).scalars
        for variant in (task, dataclasses.replace(in_search, w0=w0), dataclasses.replace(task, stale_statistics=()))
    )
    accuracy = file["ridge_accuracy"]
    assert accuracy == memory["ridge_accuracy"]
    # Measured: 0.33 against 0.00 and 0.14.
    assert accuracy > max(as_written["ridge_accuracy"], file["ridge_accuracy_random"]) + 0.1


def test_a_profile_has_no_shift_of_estimated_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    student, other = "resnet18", "mobilenet_v2(width_mult=0.1)"
    torch.save(random_unit_state(parse_backbone(other), 32, 5), "t.pth")
    assert run(["inject", "--teacher", f"{other}=t.pth", "--student", student, "--out", "w.safetensors"]) == 0
    task = load_task("digits", backbone=student, weights="w.safetensors", shots=6, image_size=32)
    profile = profile_fit(task, cache=False)
    assert profile.left_out["mean_shift"] == "the weights came without running statistics of their source"
    assert "mean_shift" not in profile.scalars


def test_score_only_needs_no_weights_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", "--teacher", "mobilenet_v2", "--student", "resnet18", "--score-only", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert 0 < document["similarity"] < 0.23
    assert document["file"] is None
    assert document["left"]
    assert "warning: similarity" in captured.err
    assert "every published injection below 0.23 was worse than random weights; compare" in captured.err
    assert not list(Path().iterdir())


def test_several_teachers_are_ranked_and_the_most_similar_one_is_injected(
    teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    far = "conv3(width=64)"
    torch.save(random_unit_state(parse_backbone(far), 28, 5), "far.pth")
    teachers = ["--teacher", f"{far}=far.pth", "--teacher", teacher]
    assert run(["inject", *teachers, "--student", STUDENT, "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["teacher"] for row in document["ranking"]] == [teacher, f"{far}=far.pth"]
    first, second = (row["similarity"] for row in document["ranking"])
    assert first == document["similarity"] == pytest.approx(0.625)
    assert second < first
    assert document["file"] == "conv3_width_6-from-conv3_width_8.safetensors"
    assert run(["inject", "--teacher", teacher, "--student", STUDENT, "--out", "alone.safetensors", "-q"]) == 0
    assert Path("alone.safetensors").read_bytes() == Path(document["file"]).read_bytes()
    capsys.readouterr()

    assert run(["inject", *teachers, "--student", STUDENT, "--score-only"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["teacher", "similarity", "coverage"] in lines
    assert lines.index([teacher, "0.625", "100.0", "%"]) < next(
        n for n, line in enumerate(lines) if "far.pth" in str(line)
    )


def test_two_files_of_one_architecture_are_equally_similar(teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, _, file = teacher.rpartition("=")
    shutil.copy(file, "copy.pth")
    options = ["--teacher", teacher, "--teacher", f"{name}=copy.pth", "--student", STUDENT, "--score-only"]
    assert run(["inject", *options]) == 0
    captured = capsys.readouterr()
    assert "not transferred: the head, with initial weights instead" in captured.out
    assert f"{name}=copy.pth: as similar as {teacher}, which was given before" in captured.err.replace("\n", " ")


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
        ("--teacher vgg11 --student conv3 --image-size 3", "--image-size 3: expected a whole number, 8 ... 1024"),
        (
            "--teacher vgg11 --student conv3 --out w.txt",
            "--out w.txt: expected a name that ends in .safetensors or .pth",
        ),
        ("--teacher vgg11 --student conv3 --out no/w.pth", "the folder no does not exist"),
        ("--teacher vgg11 --teacher vgg11 --student conv3", "--teacher vgg11 is given twice"),
        ("--teacher vgg11 --student conv3 --out /proc/w.pth", "--out /proc/w.pth: /proc cannot be written"),
        ("--teacher vgg11 --teacher vgg12 --student conv3", "unknown backbone 'vgg12'"),
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
