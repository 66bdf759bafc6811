"""The command `nbt evaluate`: its arguments, its output, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.cli.app import run
from nbt.data.image_files import PassedOver
from nbt.inference.evaluation import ModelEvaluation
from nbt.training.metrics import Predictions
from tests.cli.fakes import FakeApi

NAMES = ("ant", "bee", "cow")


def evaluation(names: tuple[str, ...] = NAMES, **options: object) -> ModelEvaluation:
    """Returns the result for four images of the first two classes, of which one is wrong and one is broken."""
    shares = np.full((4, len(names)), 0.1 / (len(names) - 1))
    shares[range(4), [0, 0, 1, 0]] = 0.9
    attributes: dict[str, object] = {
        "metric": "accuracy",
        "class_names": names,
        "results": Predictions(np.array([0, 0, 1, 1]), np.log(shares), np.arange(4, dtype=np.int32)),
        "paths": ("a.png", "b.png", "c.png", "d.png", "e.png"),
        "errors": {4: "truncated"},
        "passed_over": (PassedOver(Path("notes.txt"), "not an image"),),
        "part": "all",
        "reason": "the dataset has no test part",
        **options,
    }
    return ModelEvaluation(**attributes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name in ("model/model.json", "study/model/model.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for name in ("photos/ant/a.png", "photos/bee/b.png", "one/ant/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)


def test_text(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["evaluate"] = evaluation()
    assert run(["evaluate", "model", "photos", "-q"]) == 0
    captured = capsys.readouterr()
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert lines[0] == "photos: 4 images, all images (the dataset has no test part)"
    assert lines[1].startswith("accuracy 75.0 % [30.1, 95.4]")
    assert "accuracy of always guessing the largest class 50.0 %" in lines
    assert "bee 2 50.0 % 100.0 % 66.7 %" in lines
    assert "1 of the model's 3 classes has no images: cow" in lines
    assert lines[-4:] == ["true \\ predicted ant bee cow", "ant 2 0 0", "bee 1 1 0", "cow 0 0 0"]
    assert captured.err.splitlines() == ["e.png: truncated", "passed over: 1 .txt (not an image)"]


def test_many_classes_are_shown_by_their_errors(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["evaluate"] = evaluation((*NAMES, *(f"c{i}" for i in range(20))))
    assert run(["evaluate", "model", "photos", "-q"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "21 of the model's 23 classes have no images: cow, c0, c1, c2, c3, c4, c5, c6, c7, c8, ..." in lines
    assert lines[-2:] == ["most frequent errors predicted as images", "bee ant 1"]


def test_json_csv_and_options(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["evaluate"] = evaluation()
    options = ["--part", "all", "--metric", "macro_f1", "--ignore-unknown", "--csv", "p.csv"]
    assert run(["evaluate", "model", "photos", *options, "--json", "-q"]) == 0
    [(_, (folder, source), given)] = fake_api.calls
    assert (folder, source.path.name) == (Path("model"), "photos")
    assert (given["part"], given["metric"], given["ignore_unknown"]) == ("all", "macro_f1", True)
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["dataset"], document["images"]) == ("model", "photos", 4)
    assert document["value"]["value"] == 0.75
    assert run(["evaluate", "model", "photos", *options]) == 0
    assert "wrote p.csv\n" in capsys.readouterr().err
    lines = Path("p.csv").read_text().splitlines()
    assert lines[0] == "path,label,predicted,probability,error"
    assert lines[4] == "d.png,bee,ant,0.900000,"
    assert lines[5:] == ["e.png,,,,truncated", "notes.txt,,,,not an image"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "photos"], "nowhere: no such folder"),
        (["study", "photos"], "did you mean study/model?"),
        (["model", "nowhere"], "unknown dataset 'nowhere' (and no such folder or CSV file)"),
        (["model", "./nowhere"], "error: ./nowhere: no such folder or file"),
        (["model", "one"], "one has one class only (ant)"),
        (["model", "photos", "--part", "some"], "--part: 'some' is not a choice"),
        (["model", "photos", "--metric", "acc"], "--metric: 'acc' is not a choice"),
        (["model", "photos", "--csv", "photos"], "--csv photos: that is a folder"),
        (["model", "photos", "--csv", "photos/p.csv"], "--csv photos/p.csv: is inside the dataset"),
    ],
)
def test_wrong_input(args: list[str], message: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not fake_api.calls
