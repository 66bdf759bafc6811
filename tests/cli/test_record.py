from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbt
from nbt.cli.app import run
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.space import Space
from tests.tuning.benchmark.tables import diverge, make_table
from tests.tuning.fakes import EPOCHS, FakeEngine, copy_searched_study, make_controller, open_fake_study

WORDS = ["record", "--dataset", "digits", "--trials", "3", "--out", "t.parquet"]
Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def table() -> RecordedTable:
    return make_table(3, change=lambda run: diverge(run) if run.setting == 1 else run)


@pytest.fixture
def calls(table: RecordedTable, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Calls of a fake of `nbt.api.record` that trains nothing."""
    recorded_calls: Calls = []

    def record(dataset: str, *, on_run: Callable[[Any, int, int], None], **options: Any) -> RecordedTable:
        recorded_calls.append((dataset, options))
        for done, recorded_run in enumerate(table.runs, 1):
            on_run(recorded_run, done, len(table.runs))
            if options["seed"] == 13 and done == 2:
                raise KeyboardInterrupt
        return table

    fake = types.ModuleType("nbt.api")
    fake.record = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nbt.api", fake)
    monkeypatch.setattr(nbt, "api", fake, raising=False)
    return recorded_calls


def test_passes_its_options_on(calls: Calls) -> None:
    args = "--backbone conv4 --space binary --workers 2 --epochs 7 --image-size 32 --classes 3 --shots 9 --seed 4"
    args += " --design informed"
    assert run([*WORDS, *args.split(), "-q"]) == 0
    [(dataset, options)] = calls
    del options["progress"]
    assert dataset == "digits"
    assert options == {
        "data_dir": None,
        "backbone": "conv4",
        "weights": "default",
        "image_size": 32,
        "resize": "crop",
        "classes": 3,
        "shots": 9,
        "trials": 3,
        "out": "t.parquet",
        "space": "binary",
        "epochs": 7,
        "design": "informed",
        "workers": 2,
        "seed": 4,
    }


def test_prints_one_line_on_the_table(calls: Calls, table: RecordedTable, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(WORDS) == 0
    captured = capsys.readouterr()
    best = max(run.val_accuracy for run in table.runs)
    assert captured.out == (
        f"t.parquet: 3 settings, 4 runs of 6 epochs, 1 diverged; best validation accuracy {100 * best:.1f} %\n"
    )
    assert "recording t.parquet" in captured.err


def test_a_single_run_is_singular(table: RecordedTable) -> None:
    from nbt.cli.record import summary_text

    run = table.runs[0]
    short = dataclasses.replace(run, settings=run.settings.replace(epochs=1), curve=run.curve[:1])
    text = summary_text("t.parquet", dataclasses.replace(table, runs=[short]))
    assert text.startswith("t.parquet: 1 setting, 1 run of 1 epoch, 0 diverged")


def test_json_is_one_document(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["table"], document["settings"], document["runs"]) == ("t.parquet", 3, 4)


def test_an_interruption_prints_the_number_of_stored_runs(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--seed", "13", "-q"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted: 2 runs stored; to continue, run the same command"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "t.csv"], "--out t.csv: the name of a recorded table ends in .parquet"),
        (["--space", "non_binry"], "unknown search space"),
        (["--trials", "0"], "--trials"),
        (["--backbone", "mobilenet_v9"], "mobilenet_v9"),
        (["--storage", "sqlite:///a.db"], "--storage needs --from-studies"),
        (["birds"], "study birds needs --from-studies"),
        (
            ["--from-studies"],
            "--from-studies trains nothing and takes the task from the studies: leave out --dataset, --t",
        ),
    ],
)
def test_wrong_input_is_reported_before_anything_runs(
    args: list[str], message: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*WORDS, *args]) == 2
    assert message in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trials", "3", "--out", "t.parquet"], "missing --dataset; see nbt record --help"),
        (["--dataset", "digits", "--out", "t.parquet"], "missing --trials; see nbt record --help"),
        (["--from-studies"], "missing --out"),
        (
            ["--from-studies", "--out", "t.csv"],
            "--out t.csv: give a folder for one table per task, or a file",
        ),
        (["--from-studies", "--out", "t", "../up"], "study name '../up'"),
        (["--from-studies", "--out", "t", "--storage", "s.db"], "write sqlite:///s.db"),
        (["--from-studies", "--out", "t", "--space", "non_binry"], "unknown search space"),
        (["--from-studies", "--out", "t", "--seed", "0"], "leave out --seed"),
    ],
)
def test_training_and_studies_each_need_their_own_options(
    args: list[str], message: str, calls: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["record", *args]) == 2
    assert message in capsys.readouterr().err
    assert (calls, list(tmp_path.iterdir())) == ([], [])


class TestFromStudies:
    """Recording of a study of a simulated search."""

    @pytest.fixture(autouse=True)
    def study(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "8")

    def test_all_studies_become_a_folder_that_a_search_can_read(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with open_fake_study(tmp_path, name="none-yet"):
            pass
        assert run(["record", "--from-studies", "--out", "mine", "--json"]) == 0
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        [file] = Path("mine").iterdir()
        [row] = document["tables"]
        assert (row["table"], row["studies"], row["settings"], row["runs"]) == (str(file), ["fake"], 8, 8)
        assert (row["epochs"], row["diverged"]) == (EPOCHS, 0)
        reason = "study none-yet: no trial is complete yet"
        assert document["left_out"]["none-yet"].startswith(reason)
        assert captured.err.startswith(f"warning: left out: {reason}")
        [table] = load_experience("mine", Space.load("non_binary"))
        assert max(run.val_accuracy for run in table.runs) == row["best"]

    def test_named_studies_become_one_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        url = f"sqlite:///{Path.cwd()}/.nbt/studies.db"
        for _ in range(2):
            assert run(["record", "--from-studies", "fake", "--storage", url, "--out", "t.parquet"]) == 0
            line = capsys.readouterr().out
            assert line.startswith("t.parquet: 8 settings, 8 runs of 6 epochs, 0 diverged; best validation accuracy ")
            assert line.endswith("; from fake\n")

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--out", "t", "fak"], "unknown study 'fak'; did you mean fake?"),
            (["--out", "t", "none-yet"], "study none-yet: no trial is complete yet"),
            (["--out", "t", "--space", "binary", "fake"], "space binary cannot express trial"),
            (["--out", "t", "--storage", "sqlite:///other.db"], "there are no studies yet; nbt search creates one"),
            (
                ["--out", "t.parquet", "fake", "small"],
                "belong to different tasks: image size 32 and 16; give studies of",
            ),
        ],
    )
    def test_unusable_studies_are_reported_and_nothing_is_written(
        self, args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with open_fake_study(tmp_path, name="none-yet"):
            pass
        with open_fake_study(tmp_path, "2", name="small", image_size=16) as store:
            FakeEngine().run(make_controller(store, "2"))
        assert run(["record", "--from-studies", *args, "-q"]) == 2
        assert message in capsys.readouterr().err
        assert not Path("t").exists() and not Path("t.parquet").exists()

    def test_the_error_for_unusable_studies_has_every_reason(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["record", "--from-studies", "--out", "t", "--space", "binary", "-q"]) == 2
        message = capsys.readouterr().err
        assert "studies.db: study fake: space binary cannot express trial" in message
        assert not Path("t").exists()

    def test_a_study_that_another_driver_has_locked_can_be_recorded(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, "8"):
            assert run(["record", "--from-studies", "fake", "--out", "t.parquet", "-q"]) == 0
