from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

import nbt
from nbt.cli.app import run
from nbt.search.recorded import RecordedTable
from tests.search.replay.tables import diverge, make_table

WORDS = ["record", "--dataset", "digits", "--trials", "3", "--out", "t.parquet"]
Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def table() -> RecordedTable:
    return make_table(3, change=lambda run: diverge(run) if run.setting == 1 else run)


@pytest.fixture
def calls(table: RecordedTable, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Calls of `nbt.experience.record`, which answers without training."""
    made: Calls = []

    def record(dataset: str, *, on_run: Callable[[Any, int, int], None], **options: Any) -> RecordedTable:
        made.append((dataset, options))
        for done, one in enumerate(table.runs, 1):
            on_run(one, done, len(table.runs))
            if options["seed"] == 13 and done == 2:
                raise KeyboardInterrupt
        return table

    fake = types.ModuleType("nbt.experience")
    fake.record = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nbt.experience", fake)
    monkeypatch.setattr(nbt, "experience", fake, raising=False)
    return made


def test_passes_its_options_on(calls: Calls) -> None:
    words = "--backbone conv4 --space binary --workers 2 --epochs 7 --image-size 32 --classes 3 --shots 9 --seed 4"
    assert run([*WORDS, *words.split(), "-q"]) == 0
    [(dataset, options)] = calls
    del options["progress"]
    assert dataset == "digits"
    assert options == {
        "data_dir": None,
        "backbone": "conv4",
        "weights": "default",
        "image_size": 32,
        "classes": 3,
        "shots": 9,
        "trials": 3,
        "out": "t.parquet",
        "space": "binary",
        "epochs": 7,
        "workers": 2,
        "seed": 4,
    }


def test_one_line_says_what_was_recorded(
    calls: Calls, table: RecordedTable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(WORDS) == 0
    captured = capsys.readouterr()
    best = max(run.val_accuracy for run in table.runs)
    assert captured.out == (
        f"t.parquet: 3 settings, 4 runs of 6 epochs, 1 diverged; best validation accuracy {100 * best:.1f} %\n"
    )
    assert "recording t.parquet" in captured.err


def test_json_is_one_document(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["table"], document["settings"], document["runs"]) == ("t.parquet", 3, 4)


def test_an_interruption_says_what_is_kept(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--seed", "13", "-q"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted: 2 runs kept; the same command continues"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "t.csv"], "--out t.csv: the name of a recorded table ends in .parquet"),
        (["--space", "non_binry"], "unknown search space"),
        (["--trials", "0"], "--trials"),
        (["--backbone", "mobilenet_v9"], "mobilenet_v9"),
    ],
)
def test_wrong_input_is_named_before_anything_runs(
    words: list[str], message: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*WORDS, *words]) == 2
    assert message in capsys.readouterr().err
    assert calls == []
