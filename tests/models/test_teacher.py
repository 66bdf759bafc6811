"""Teachers: syntax, and files that do not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nbt.errors import UsageError
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import (
    canonical_teacher_name,
    load_teacher,
    parse_teacher,
    parse_teachers,
    short_teacher_names,
    teacher_without_folder,
)
from nbt.models.weights import random_unit_state


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "a=b (c).pth"
    torch.save(random_unit_state(parse_backbone("conv3(width=4)"), 28, 5), path)
    return path


def test_a_name_without_file_uses_library_weights() -> None:
    assert parse_teacher(" mobilenet_v2(width_mult=0.5) ") == (
        parse_backbone("mobilenet_v2(width_mult=0.5)"),
        "default",
    )


def test_a_file_follows_the_first_equals_sign_outside_parentheses(weights: Path) -> None:
    teacher = load_teacher(f"conv3(width=4)={weights}")
    assert teacher.spec == parse_backbone("conv3(width=4)")
    assert teacher.name == f"conv3(width=4)={weights}"
    fresh = random_unit_state(teacher.spec, 28, 5)
    assert list(teacher.w0) == list(fresh)
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in teacher.w0.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write BACKBONE"),
        ("=w.pth", "write BACKBONE"),
        ("conv3=", "write BACKBONE"),
        ("conv3=nowhere.pth", "no file nowhere.pth"),
        ("mobilnet_v2", "did you mean"),
        ("mobilnet_v2=nowhere.pth", "did you mean"),
    ],
)
def test_invalid_texts_are_refused_before_loading(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_teacher(text)


def test_the_path_of_a_file_is_made_absolute(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = f"conv3(width=4)= {weights.name}"
    full = f"conv3(width=4)={weights}"
    assert parse_teacher(written) == (parse_backbone("conv3(width=4)"), str(weights))
    assert load_teacher(written).name == canonical_teacher_name(written) == canonical_teacher_name(full) == full
    assert canonical_teacher_name("mobilenet_v2(width_mult = .5)") == "mobilenet_v2(width_mult=0.5)"


def test_several_teachers_are_one_text_or_a_list(weights: Path) -> None:
    assert parse_teachers(None) == ()
    names = ("vgg11", f"conv3(width=4)={weights}")
    for value in (names, list(names), str(list(names)), [f"[vgg11, '{names[1]}']"]):
        assert parse_teachers(value) == names
    assert parse_teachers("vgg11") == ("vgg11",)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["vgg11", "conv3(width=4)=/w/a=b.pth"], ["vgg11", "conv3(width=4)"]),
        (["vgg11", "vgg11=/w/a.pth"], ["vgg11", "vgg11=a.pth"]),
        (["conv3=/w/a.pth", "conv3=/w/b.pth"], ["conv3=a.pth", "conv3=b.pth"]),
        (["conv3=/v/a.pth", "conv3=/w/a.pth", "conv3=/w/b.pth"], ["conv3=/v/a.pth", "conv3=/w/a.pth", "conv3=b.pth"]),
        ([], []),
    ],
)
def test_short_names_tell_teachers_apart(names: list[str], short: list[str]) -> None:
    assert short_teacher_names(names) == dict(zip(names, short, strict=True))


def test_texts_name_the_file_of_a_teacher_without_its_folder() -> None:
    assert teacher_without_folder("conv3(width=4)=/w/a=b.pth") == "conv3(width=4)=a=b.pth"
    assert [teacher_without_folder(name) for name in ("vgg11", "")] == ["vgg11", ""]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["vgg11", "vgg11"], "--teacher vgg11 is given twice$"),
        (
            ["mobilenet_v2(width_mult=0.5)", "mobilenet_v2(width_mult=.5)"],
            r"--teacher mobilenet_v2\(width_mult=.5\) is given twice, also as mobilenet_v2\(width_mult=0.5\)",
        ),
        (["vgg11", "vgg12"], "unknown backbone 'vgg12'"),
        ([], "expected BACKBONE"),
        ([""], "expected BACKBONE"),
        (3, "expected BACKBONE"),
        ({"vgg11": "w.pth"}, "expected BACKBONE"),
        ("[vgg11, {a: 1}]", "expected BACKBONE"),
        ("[vgg11", "teacher"),
    ],
)
def test_wrong_lists_of_teachers_are_refused(value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_teachers(value)


def test_a_file_that_does_not_fit_its_architecture_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not fit conv3\(width=5\): .*of another shape: units.0"):
        load_teacher(f"conv3(width=5)={weights}")
    (tmp_path / "torn.pth").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="not a file of tensors"):
        load_teacher(f"conv3={tmp_path / 'torn.pth'}")


def test_encoders_have_no_library_weights() -> None:
    with pytest.raises(UsageError, match="has no library weights"):
        load_teacher("conv3")


def test_a_teacher_is_checked_without_torch() -> None:
    script = (
        "import sys; from nbt.models.teacher import parse_teacher as p; p('conv3'); assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
