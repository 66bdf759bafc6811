"""The command `nbt predict`: its arguments, its output, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nbt.cli.app import run
from tests.cli.fakes import FakeApi


def predictions(*rows: tuple[str, str]) -> pd.DataFrame:
    """Returns the frame of `nbt.predict` for paths with the reason why they cannot be read, or ""."""
    labels = {"label": "cat", "probability": 0.9, "label_2": "dog", "probability_2": 0.1}
    empty: dict[str, Any] = dict.fromkeys(labels)
    return pd.DataFrame([{"path": path, **(empty if error else labels), "error": error} for path, error in rows])


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name in ("model/model.json", "images/b.png", "images/deep/a.JPG", "images/notes.txt", "empty/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_searches_through_folders(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [Path("images/b.png"), Path("images/deep/a.JPG"), Path("images/notes.txt")]
    fake_api.results["predict"] = predictions(*((str(path), "") for path in expected))
    assert run(["predict", "model", "images", "images/notes.txt", "-q"]) == 0
    [(_, (folder, source), options)] = fake_api.calls
    assert (folder, source.items, options["top"]) == (Path("model"), expected, 5)
    text = " ".join(capsys.readouterr().out.split())
    assert "images/b.png cat 90.0 %" in text
    assert "dog" not in text


def test_a_folder_without_its_subfolders(fake_api: FakeApi) -> None:
    fake_api.results["predict"] = predictions(("images/b.png", ""))
    assert run(["predict", "model", "images", "--no-recursive", "-q"]) == 0
    [(_, (_, source), _)] = fake_api.calls
    assert source.items == [Path("images/b.png")]


def test_the_most_likely_classes(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["predict"] = predictions(("images/b.png", ""))
    assert run(["predict", "model", "images/b.png", "--top", "2", "-q"]) == 0
    assert fake_api.calls[0][2]["top"] == 2
    assert "images/b.png cat 90.0 % dog 10.0 %" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("code", [0, 1])
def test_unreadable_images_are_listed(code: int, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "cannot be read" if code else ""
    rows = [("images/b.png", reason), ("images/deep/a.JPG", "cannot be read"), ("images/notes.txt", "not an image")]
    fake_api.results["predict"] = predictions(*rows)
    assert run(["predict", "model", "images", "--json", "-q"]) == code
    captured = capsys.readouterr()
    assert "images/deep/a.JPG: cannot be read" in captured.err
    assert "passed over: 1 .txt (not an image)" in captured.err
    document = json.loads(captured.out)
    empty = {"label": None, "probability": None, "top": []}
    assert document[-2:] == [
        {"path": "images/deep/a.JPG", **empty, "error": "cannot be read"},
        {"path": "images/notes.txt", **empty, "error": "not an image"},
    ]
    if not code:
        assert document[0] == {
            "path": "images/b.png",
            "label": "cat",
            "probability": 0.9,
            "top": [{"label": "cat", "probability": 0.9}, {"label": "dog", "probability": 0.1}],
            "error": None,
        }


def test_csv(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["predict"] = predictions(("images/b.png", ""), ("images/deep/a.JPG", "cannot be read"))
    assert run(["predict", "model", "images", "--csv", "out/p.csv", "-q"]) == 0
    quiet = capsys.readouterr()
    assert quiet.out == "" and "wrote" not in quiet.err
    assert run(["predict", "model", "images", "--csv", "out/p.csv"]) == 0
    assert "wrote out/p.csv\n" in capsys.readouterr().err
    assert Path("out/p.csv").read_text().splitlines() == [
        "path,label,probability,label_2,probability_2,error",
        "images/b.png,cat,0.900000,dog,0.100000,",
        "images/deep/a.JPG,,,,,cannot be read",
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["model", "nowhere.png"], "nowhere.png: no such file"),
        (["model", "empty"], "empty: the folder contains no images; found 1 .txt (not an image)"),
        (["images", "images"], "images: not a model folder"),
        ([".", "images"], "did you mean model?"),
        (["model", "images", "--csv", "images"], "--csv images: that is a folder"),
        (["model", "images", "--top", "0"], "--top"),
    ],
)
def test_wrong_input(args: list[str], message: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", *args]) == 2
    assert message in capsys.readouterr().err
    assert not fake_api.calls
