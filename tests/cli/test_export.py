"""The command `nbt export`: its arguments, its output, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbt.cli.app import run
from nbt.inference.export import FORMATS, ExportedFile
from tests.cli.fakes import FakeApi


@pytest.fixture(autouse=True)
def model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").touch()


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_and_output(name: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["export"] = ExportedFile(
        path=Path("out/m"), format=name, size=2_500_000, max_difference=2e-7, tolerance=1e-4
    )
    assert run(["export", "model", "--format", name, "--out", "out/m", "-q"]) == 0
    assert fake_api.calls == [("export", (Path("model"), "out/m", name), {})]
    text = " ".join(capsys.readouterr().out.split())
    assert text == "out/m (2.5 MB): its probabilities equal those of the model within 2e-07 (accepted: 1e-04)"


def test_json(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["export"] = ExportedFile(
        path=Path("m.onnx"), format="onnx", size=5, max_difference=0.0, tolerance=1e-4
    )
    assert run(["export", "model", "--format", "onnx", "--out", "m.onnx", "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"path": "m.onnx", "format": "onnx", "size": 5, "max_difference": 0.0, "tolerance": 1e-4}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "--format", "onnx", "--out", "m.onnx"], "nowhere: no such folder"),
        (["model", "--format", "onxx", "--out", "m.onnx"], "--format: 'onxx' is not a choice; did you mean onnx?"),
        (["model", "--out", "m.onnx"], "missing --format"),
        (["model", "--format", "onnx"], "missing --out"),
        (["model", "--format", "onnx", "--out", "model"], "--out model: that is a folder"),
    ],
)
def test_wrong_input(args: list[str], message: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not fake_api.calls
