"""`nbt check` on generated folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbt.cli.app import run
from nbt.data.checks.registry import DATA_CHECKS
from tests.data.pictures import save_classes, save_image

# Generated images are alike.
COPIES = ",".join(check.code for check in DATA_CHECKS if check.code in ("NBT102", "NBT103", "NBT104"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))


def check(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, str]]:
    """Returns the exit code and the severity of each failed check."""
    code = run(["check", "--dataset", str(folder), "--image-size", "16", "--json", "-q", *more])
    results = json.loads(capsys.readouterr().out)["checks"]
    return code, {r["code"]: r["severity"] for r in results if r["state"] == "failed" and r["code"] not in COPIES}


def test_warnings_do_not_change_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_classes(tmp_path / "birds", {"a": 20, "b": 5})
    (folder / "@eaDir").mkdir()
    assert check(folder, capsys, "--ignore", "NBT105,nbt107") == (
        0,
        {"NBT106": "warning", "NBT110": "info"},
    )
    assert check(folder, capsys, "--ignore", f"{COPIES},nbt106", "--ignore", "NBT105") == (0, {"NBT110": "info"})


def test_an_error_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_classes(tmp_path / "birds", {"a": 6, "b": 6})
    (folder / "a" / "000.png").write_bytes(b"")
    code, failed = check(folder, capsys)
    assert (code, failed) == (1, {"NBT109": "error"})
    assert check(folder, capsys, "--ignore", f"NBT109,{COPIES}") == (0, {})


def test_the_results_are_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_classes(tmp_path / "birds", {"a": 20, "b": 5})
    run(["check", "--dataset", str(folder), "--image-size", "16", "-q", "--ignore", COPIES])
    text = " ".join(capsys.readouterr().out.split())
    assert "warning NBT106 Class a has 16 training and validation images, class b 4: 4.0 to 1. b: 4 Judge" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ignore", "NBT999"], "no check has this code"),
        (["--resize", "stretch"], "--resize"),
        (["--image-size", "3"], "--image-size 3"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    folder = save_classes(tmp_path / "birds", {"a": 6, "b": 6})
    assert run(["check", "--dataset", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_an_ambiguous_folder_gives_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test"):
        save_image(tmp_path / "birds" / name / "1.png")
    assert run(["check", "--dataset", str(tmp_path / "birds")]) == 2
    assert "put the class folders into train/, val/ and test/" in capsys.readouterr().err


def test_needs_no_torch(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "birds", {"a": 6, "b": 6})
    code = (
        f"import sys; from nbt.cli.app import run; run(['check', '--dataset', {str(folder)!r}, '-q'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_what_was_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, images in (("train", 10), ("test", 4)):
        save_classes(tmp_path / "birds" / part, {"a": images, "b": images})
    options = ["check", "--dataset", str(tmp_path / "birds"), "--image-size", "16", "-q", "--ignore", COPIES]
    assert run(options) == 0
    assert "28 images of 2 classes: 16 training, 4 validation, 8 test (training, test official)" in (
        capsys.readouterr().out
    )
    run([*options, "--json"])
    read = json.loads(capsys.readouterr().out)
    assert (read["images"], read["classes"], read["class_names"]) == (28, 2, ["a", "b"])
    assert read["parts"] == {"training": 16, "validation": 4, "test": 8}


def test_a_fatal_error_is_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_classes(tmp_path / "birds", {"a": 6})
    assert run(["check", "--dataset", str(tmp_path / "birds"), "--json"]) == 2
    captured = capsys.readouterr()
    read = json.loads(captured.out)
    assert "has one class only (a)" in read["error"] and read["checks"] == []
    assert captured.err == f"error: {read['error']}\n"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("record", ["--trials", "3", "--out", "birds/t.parquet"]),
        ("fit", ["--plot", "birds/plot.png"]),
        ("pretrain", ["--out", "birds/w.safetensors"]),
        ("continual", ["--scenario", "class", "--out", "birds/reports"]),
    ],
)
def test_every_command_refuses_to_write_into_the_dataset(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_classes(tmp_path / "birds", {"a": 6, "b": 6})
    assert run([command, "--dataset", "birds", *options]) == 2
    assert f"is inside the dataset {folder}" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("command", ["search", "train"])
def test_nothing_is_written_into_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    folder = save_classes(tmp_path / "birds", {"a": 6, "b": 6})
    (tmp_path / "settings.yaml").write_text("epochs: 1\n")
    options = {
        "search": ["--budget", "3", "--out", str(folder / "reports")],
        "train": ["--settings", str(tmp_path / "settings.yaml"), "--export", str(folder / "model")],
    }
    assert run([command, "--dataset", str(folder), *options[command]]) == 2
    assert f"is inside the dataset {folder}" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    "options",
    [
        ["inject", "--teacher", "conv3(width=8)", "--student", "conv3(width=6)", "--out", "birds/w.pth"],
        ["replay", "t.parquet", "--out", "birds/replay"],
    ],
)
def test_commands_without_a_dataset_do_not_write_among_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_classes(tmp_path / "birds", {"a": 6, "b": 6})
    assert run(options) == 2
    assert f"is inside {folder}, a folder of class folders" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_names_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_classes(tmp_path / "birds", {"a\x1b[31mb\x1b]0;title\x07": 20, "b": 5})
    (folder / "b" / "c\x1b[2J.png").write_bytes(b"damaged")
    run(["check", "--dataset", str(folder), "--image-size", "16"])
    printed = capsys.readouterr()
    assert "a?[31mb?]0;title" in printed.out and "c?[2J.png" in printed.out + printed.err
    assert not {"\x1b", "\x07"} & set(printed.out + printed.err)
