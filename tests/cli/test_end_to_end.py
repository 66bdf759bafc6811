"""A complete search from the command line, with real images and training, interrupted and resumed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from nbt.cli.app import run
from nbt.display.search_progress import SearchProgress
from nbt.training.results import EpochResult
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.space.space import Space
from tests.cli.test_commands import load_strictly

TASK = ["--dataset", "digits", "--weights", "none"]
SEARCH = ["search", *TASK, "--budget", "2", "--epochs", "2", "--final-seeds", "2", "--study", "s", "--json", "-q"]


@pytest.mark.slow
def test_search_report_train_predict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: SearchProgress, number: int, result: EpochResult, epochs_spent: int) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGINT)

    def results(args: list[str], code: int = 0) -> Any:
        assert run(args) == code, capsys.readouterr().err
        return load_strictly(capsys.readouterr().out)

    with monkeypatch.context() as patch:
        patch.setattr(SearchProgress, "epoch_finished", interrupt)
        assert run(SEARCH) == 130
    captured = capsys.readouterr()
    assert captured.err.strip() == "interrupted: 1 trial stored; to continue, run the same command"
    assert captured.out == ""
    [study] = results(["studies", "--json"])
    assert (study["name"], study["trials"]["running"], study["finished"]) == ("s", 0, False)

    document = results(SEARCH)
    assert document["study"] == "s"
    assert document["trials"]["complete"] >= 1
    assert document["epochs"] == {"spent": document["epochs"]["spent"], "budget": 4}
    assert document["cost"]["spent"] <= document["cost"]["budget"] == 2
    tests = [document["test"][name] for name in ("recommended", "baseline")]
    assert all(test["low"] < test["value"] < test["high"] and test["n"] == 179 for test in tests)
    folder = Path(document["report"]).parent
    assert yaml.safe_load((folder / "recommended.yaml").read_text())["epochs"] == 2
    assert {"report.html", "report.md", "trials.csv", "model"} <= {path.name for path in folder.iterdir()}
    assert results(SEARCH)["test"] == document["test"], "a finished study is not tested again"

    assert results(["report", "s", "--json"])["report"] == document["report"]
    [table] = results(["record", "--from-studies", "s", "--out", "mine", "--json"])["tables"]
    assert table["runs"] == document["trials"]["complete"]
    [experience] = load_experience("mine", Space.load("non_binary"))
    assert experience.header.profile is not None
    assert set(results(["sync", "s", "--json"])) >= {"written"}

    settings = str(folder / "recommended.yaml")
    trained = results(["train", *TASK, "--settings", settings, "--export", "m", "--json", "-q"])
    assert 0.0 <= trained["test"]["mean"] <= 1.0

    Image.new("L", (20, 20), 128).save("grey.png")
    Path("broken.png").write_bytes(b"not an image")
    good, bad = results(["predict", "m", "grey.png", "broken.png", "--json", "-q"])
    assert good["label"] in {"5", "6", "7", "8", "9"}
    assert bad["error"]
