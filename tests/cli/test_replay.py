from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbt.cli.app import run
from tests.tuning.benchmark.curves.curve_files import write_table
from tests.tuning.benchmark.tables import make_table


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.parquet" for name in ("birds", "fish")]
    for seed, path in enumerate(paths):
        make_table(30, seed=seed, dataset=path.stem, data_hash=path.stem).save(path)
    return [str(path) for path in paths]


def test_prints_the_results(tables: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--seeds", "2", "--methods", "random, asha", "--budget", "6", "-q"]
    assert run(["replay", *tables, *args]) == 0
    captured = capsys.readouterr()
    text = " ".join(captured.out.split())
    assert captured.err == ""
    assert "birds · conv3 30 36" in text, "task, settings, horizon"
    assert text.count("fish · conv3 asha") == 1
    assert "Searches per method and task: 2;" in text
    assert "(against random)" in text


def test_json_is_one_document(tables: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["--seeds", "2", "--methods", "random,tpe", "--budget", "5", "--out", str(out), "--json"]
    assert run(["replay", *tables, *args]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seeds"] == 2
    assert list(document["methods"]) == ["random", "tpe"]
    assert {row["task"] for row in document["summary"]} == {"birds · conv3", "fish · conv3"}
    assert Path(document["folder"], "summary.csv").is_file()
    assert (out / "regret.svg").is_file()


def test_experience_is_that_of_the_option(tables: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--seeds", "1", "--methods", "random", "--budget", "3", "--json"]
    found = {}
    for option in ([], ["--experience", str(Path(tables[0]).parent)], ["--experience", "shipped"]):
        assert run(["replay", tables[0], *args, *option]) == 0
        found[len(found)] = json.loads(capsys.readouterr().out)["tasks"][0]["experience"]
    assert found[0] == ""
    assert found[1] == "fish · conv3"
    assert "digits · conv3" in found[2]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.parquet"], "none.parquet: no such file"),
        (["TABLE", "--methods", "tpa"], "unknown method 'tpa'; did you mean"),
        (["TABLE", "--experience", "none"], "--experience none: No such file or directory"),
        (["TABLE", "--space", "binary"], "but space binary has"),
        (["TABLE", "--space", "non_binry"], "unknown search space 'non_binry'"),
        ([], "missing TABLE.parquet"),
        (["TABLE", "--seeds", "0"], "--seeds"),
    ],
)
def test_wrong_input_is_reported(
    tables: list[str], args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", *(tables[0] if word == "TABLE" else word for word in args)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.strip().splitlines()[-1]
    assert captured.out == ""


@pytest.fixture
def curves(tmp_path: Path) -> str:
    return write_table(tmp_path / "curves.parquet")


def test_generic_tables_are_replayed(curves: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--metric", "valid_loss", "--judge", "test_loss", "--minimize", "--seeds", "2", "--budget", "5"]
    assert run(["replay", curves, *options, "--methods", "random,tpe+asha,1-epoch", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tasks"] == [{"task": "curves", "settings": 40, "epochs_of_trial": 9}]
    assert [row["method"] for row in document["overall"]] == ["random", "tpe+asha", "1-epoch"]
    assert run(["replay", curves, *options, "--methods", "random,tpe+asha", "-q"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Searches per method and task: 2." in text
    assert "to tpe+asha, paired" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metric", "val_loss"], "--metric 'val_loss' is not a column of curves"),
        (["--metric", "valid_loss", "--judge", "rate"], "--judge 'rate' is not a column of curves"),
        (["--metric", "valid_loss", "--space", "binary"], "--space and --experience are for tables of nbt record"),
        (["--metric", "valid_loss", "--experience", "shipped"], "leave them out with --metric"),
        (["--judge", "test_loss"], "--judge needs --metric"),
        (["--minimize"], "--minimize needs --metric"),
        (["--metric", "valid_loss", "--methods", "portfolio"], "unknown method 'portfolio'"),
    ],
)
def test_wrong_options_of_generic_tables_are_reported(
    curves: str, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", curves, *args]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
