"""`nbt continual --scenario stream`: option checks and output."""

from __future__ import annotations

import json

import pytest

from nbt.cli.app import run

STREAM = ["continual", "--scenario", "stream", "--dataset", "digits"]
TINY = [*STREAM, "--backbone", "conv3(width=4)", "--weights", "none", "--train", "3", "--test", "2", "--draws", "2"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["continual", "--dataset", "digits"], "missing --scenario"),
        (["continual", "--scenario", "stream"], "missing --dataset"),
        (["continual", "--scenario", "streams", "--dataset", "digits"], "did you mean stream"),
        ([*STREAM, "--protocol", "standart"], "did you mean standard"),
        ([*STREAM, "--epochs", "3"], "--epochs is an option of --protocol standard"),
        ([*STREAM, "--batch-size", "3"], "--batch-size is an option of --protocol standard"),
        ([*STREAM, "--train", "0"], "--train: 0"),
        ([*STREAM, "--classes", "1"], "classes 1"),
        ([*STREAM, "--lr", "-1"], "rates: -1 is not above 0"),
        ([*STREAM, "--skip-classes", "-1"], "skip classes -1"),
        ([*STREAM, "--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        ([*TINY, "--classes", "6"], "classes 6: the dataset has 5; give --classes N"),
        ([*TINY, "--train", "500"], "give --train N and --test N"),
    ],
)
def test_wrong_input_is_reported(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]


def test_prints_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TINY, "--sweep-draws", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "continual transfer of conv3(width=4) to 5 classes of digits: 3 images per class, 15 "
    )
    assert "(selected on separate draws)" in captured.out
    assert "over 2 draws" in captured.out
    assert "choosing the learning rate" in captured.err


def test_json_contains_every_draw(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--protocol", "standard", "--epochs", "2", "--batch-size", "4", "--train-layers", "head", "--classes", "3"]
    assert run([*TINY, *args, "--sweep-draws", "2", "--skip-classes", "1", "--json", "-q"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert (document["scenario"], document["protocol"], document["classes"], document["steps"]) == (
        "stream",
        "standard",
        3,
        6,
    )
    assert len(document["accuracies"]) == 2 and len(document["sweep"]) == 8
    assert all(len(values) == 2 for values in document["sweep"].values())
    assert f"{document['rate']:g}" in document["sweep"]
