"""A search by macro F1 on equal grey images, of which one class has ten times as many as the others."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from nbt import api
from nbt.api.results import SearchResult
from nbt.checks import FAILED, PASSED
from nbt.cli.display.summary import search_summary

IMAGES = {"cat": 50, "dog": 5, "owl": 5}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label, number in IMAGES.items():
        folder = tmp_path / "pets" / label
        folder.mkdir(parents=True)
        for i in range(number):
            Image.fromarray(rng.integers(126, 130, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def shown(result: SearchResult) -> list[str]:
    """Returns the lines of the summary on screen."""
    console = Console(width=200, file=io.StringIO(), record=True)
    for part in search_summary(result.record, result.recommended, result.report_path):
        console.print(part)
    return console.export_text().splitlines()


def test_the_result_shows_guessing_recall_and_the_checks(own_folder: Path) -> None:
    result = api.search(
        str(own_folder / "pets"),
        backbone="conv3(width=4)",
        weights="none",
        image_size=32,
        metric="macro_f1",
        budget="2",
        epochs=2,
        final_seeds=2,
        study="s",
        workers=1,
        heuristics=False,
    )
    document, classes = result.to_json(), result.test_classes.set_index("name")
    n, largest = document["test"]["recommended"]["n"], int(classes.images.max())
    assert n == classes.images.sum() and largest == classes.images["cat"] >= 10 * classes.images["dog"] > 0
    majority = document["test"]["majority"]
    assert (document["metric"], majority["metric"]) == ("macro_f1", "macro_f1")
    assert majority["value"] == pytest.approx(2 * largest / (n + largest) / 3), "the F1 of the largest class over three"
    checks = {check["code"]: check for check in document["checks"]}
    assert checks["NBT106"]["state"] == FAILED
    assert "10.0 to 1" in checks["NBT106"]["message"]
    assert classes.recall.drop("cat").to_dict() == {"dog": 0.0, "owl": 0.0}, "nothing distinguishes the images"
    assert document["test"]["recommended"]["value"] <= majority["value"] + 1e-9
    assert checks["NBT205"]["state"] != PASSED
    lines = [" ".join(line.split()) for line in shown(result)]
    assert "lowest recall dog 0.0 % of 1, owl 0.0 % of 1" in "\n".join(lines)
    report = Path(document["report"]).with_suffix(".md").read_text()
    for text in ("macro F1", "always guessing the largest class", "NBT106", "starts from random weights"):
        assert text in report, text
    assert "keeps all pretrained" not in report
