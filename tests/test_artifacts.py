"""What version c8d5bce left on disks still loads, says the same and goes on; see tests/artifacts/README.md.

Every test works on a copy. What is read is compared to the digit, what is trained again to a tolerance: another
processor may round otherwise. New keys and columns are welcome, those that were there must stay.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nbt.cli.app import run
from nbt.settings import TransferSettings
from nbt.training.checkpoint import load_checkpoint
from nbt.training.results import EpochResult
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.studies import read_study, resolve_storage

DATA = Path(__file__).resolve().parent / "artifacts" / "c8d5bce"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))

# The commands of tests/artifacts/make_artifacts.py.
BACKBONE = ["--dataset", "images", "--backbone", "conv3(width=8)"]
TASK = [*BACKBONE, "--weights", "source.safetensors"]
RECORD = ["record", *TASK, "--epochs", "4"]
SEARCH = ["search", *TASK, "--epochs", "6", "--final-seeds", "2", "--study", "s", "--experience", "experience"]
STREAM = ["continual", *BACKBONE, "--weights", "none", "--scenario", "data", "--tasks", "2", "--epochs", "2"]

# Parts of shown sentences that were rephrased since c8d5bce; all other texts must stay.
REPHRASED = {
    "cannot be told apart from": "cannot be distinguished from",
    "the knee of the per-unit gain is ours": "nbt uses the knee of the per-unit gain",
    "pull few units towards them": "pull few units towards the pretrained weights",
    "similar targets want a small lr": "similar targets prefer a small lr",
    "dissimilar ones a larger": "dissimilar ones a larger one",
    "arXiv 2107.08585: rates by layer": "arXiv 2107.08585: learning rates by layer",
    "our recorded runs: strong": "recorded runs of nbt: strong",
    "augmentation does not pay": "augmentation does not improve accuracy",
    "no average of the weights over more than": "average the weights over at most",
    "as 32 images a step give": "as batches of 32 images give",
    "steps an epoch are few here": "small datasets have few steps",
    "a head takes about 8 of the 6 epochs to be learned again": "a reset head needs about 8 of the 6 epochs to recover",
    "ours, on Frati": "nbt, based on Frati",
    "who zap in long": "who zap during long",
    "the network itself rather than its expansion": "train the network rather than its first-order expansion",
    "12 images a class, and squared error for the expansion alone": (
        "12 images per class, and use squared error only with the expansion"
    ),
    "networks come near with": "networks come close with",
    "what digits · conv3(width=8) was trained best with": (
        "prefer settings like the best ones on digits · conv3(width=8)"
    ),
    "similarity of the tasks": "task similarity",
    "nothing in the profile speaks for it": "the profile gives no reason for it",
    "Random settings to full length, without anchors.": "Random settings; no pruning and no baseline recipes.",
    "the lower half is stopped at a third": "the lower half of the trials is stopped at one third",
}

RETRAINED = 1e-3
SINGLE = 1e-6  # tables hold single precision

Results = Callable[..., Any]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the commands were given, without what they made."""
    for name in ("images", "experience"):
        shutil.copytree(DATA / name, tmp_path / name)
    for name in ("source.safetensors", "table.parquet"):
        shutil.copy(DATA / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def same_logging_afterwards() -> Any:
    log = logging.getLogger("nbt")
    before = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture
def results(capsys: pytest.CaptureFixture[str]) -> Results:
    """Runs a command line and returns its JSON."""

    def command(*words: str) -> Any:
        capsys.readouterr()
        code = run([*words, "--json", "-q"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return command


@pytest.fixture
def finished(workplace: Path) -> StudyRecord:
    """The finished study, with its report."""
    (workplace / ".nbt").mkdir()
    shutil.copy(DATA / "finished" / "studies.db", workplace / ".nbt")
    shutil.copytree(DATA / "finished" / "report", workplace / "reports" / "s")
    return study()


@pytest.fixture
def halfway(workplace: Path) -> StudyRecord:
    """The study whose driver was killed in its third trial, with the checkpoint."""
    shutil.copytree(DATA / "halfway", workplace / ".nbt")
    return study()


def study() -> StudyRecord:
    return read_study(resolve_storage(None), "s")


def holds(found: Any, expected: Any, rel: float = 1e-12, where: str = "") -> None:
    """Checks that all that was expected is there; mappings may have more."""
    if isinstance(expected, dict):
        missing = expected.keys() - found.keys()
        assert not missing, f"{where}: {missing}"
        for name, value in expected.items():
            holds(found[name], value, rel, f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            holds(found[number], value, rel, f"{where}/{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=rel), where
    else:
        assert found == expected, where


def rephrased(stored: Any) -> Any:
    """Returns a stored value with the present wording of its sentences."""
    if isinstance(stored, dict):
        return {name: rephrased(value) for name, value in stored.items()}
    if isinstance(stored, list):
        return [rephrased(value) for value in stored]
    if isinstance(stored, str):
        for old, new in REPHRASED.items():
            stored = stored.replace(old, new)
    return stored


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same_training(found: tuple[EpochResult, ...], expected: tuple[EpochResult, ...]) -> None:
    """Checks that two trainings went alike, whatever their time."""
    untimed = [[{**result.to_dict(), "seconds": 0.0} for result in curve] for curve in (found, expected)]
    holds(*untimed, rel=RETRAINED)


class TestFinishedStudy:
    def test_it_is_listed_and_reported(self, finished: StudyRecord, results: Results, workplace: Path) -> None:
        holds(results("studies"), EXPECTED["studies"])
        report = Path(results("report", "s", "--out", "again")["report"])
        assert report == workplace / "again" / "s" / "report.html"
        before, again = DATA / "finished" / "report", report.parent
        holds(rows(again / "trials.csv"), rows(before / "trials.csv"))
        holds(json.loads((again / "fit.json").read_text()), json.loads((before / "fit.json").read_text()))
        assert (again / "recommended.yaml").read_text() == rephrased((before / "recommended.yaml").read_text())
        for text in (report.read_text(), (again / "report.md").read_text()):
            assert "+16.7" in text and "66.7" in text, "versus the default recipe; test"
        assert [trial.val_accuracy for trial in finished.trials] == [
            pytest.approx(float(row["val_accuracy"])) for row in rows(before / "trials.csv")
        ]

    def test_the_same_command_trains_nothing_again(
        self, finished: StudyRecord, results: Results, workplace: Path
    ) -> None:
        weights = (workplace / "reports/s/model/weights.safetensors").stat()
        found = results(*SEARCH, "--budget", "6")
        holds({**found, "seconds": 0.0}, {**rephrased(EXPECTED["search"]), "seconds": 0.0})
        after = study()
        assert after.trials == finished.trials
        assert after.finals == finished.finals
        assert after.test == finished.test
        assert after.test_evaluations == finished.test_evaluations == 1
        assert after.profile == finished.profile
        again = (workplace / "reports/s/model/weights.safetensors").stat()
        assert (again.st_ino, again.st_mtime_ns) == (weights.st_ino, weights.st_mtime_ns)

    def test_a_greater_budget_goes_on(self, finished: StudyRecord, results: Results) -> None:
        found = results(*SEARCH, "--budget", "7")
        after = study()
        assert after.trials[:6] == finished.trials
        assert {trial.origin for trial in after.trials[6:]} == {"sampler"}
        assert found["epochs"] == {"spent": after.epochs_spent, "budget": 42}
        assert 36 < after.epochs_spent <= 42
        assert after.profile == finished.profile
        before = {(final.name, seed_run.seed): seed_run for final in finished.finals for seed_run in final.runs}
        kept = {(final.name, seed_run.seed): seed_run for final in after.finals for seed_run in final.runs}
        assert all(kept[key] == before[key] for key in kept.keys() & before.keys())
        assert ("default recipe", 1) in kept.keys() & before.keys()

    def test_mlflow_is_told_the_same(self, finished: StudyRecord, results: Results, workplace: Path) -> None:
        count = len(EXPECTED["mlflow"])
        assert results("sync", "s") == {"written": count, "updated": 0, "unchanged": 0}
        assert results("sync", "s") == {"written": 0, "updated": 0, "unchanged": count}
        holds(mlflow_runs(workplace / ".nbt" / "mlflow.db"), EXPECTED["mlflow"])

    def test_it_becomes_experience(self, finished: StudyRecord, results: Results) -> None:
        [row] = results("record", "--from-studies", "s", "--out", "mine")["tables"]
        [table] = load_experience("mine", Space.load("non_binary"))
        assert (row["runs"], len(table.runs)) == (6, 6)
        assert [one.settings for one in table.runs] == [trial.settings for trial in finished.trials]
        accuracies = [trial.val_accuracy for trial in finished.trials]
        assert [one.val_accuracy for one in table.runs] == pytest.approx(accuracies, rel=SINGLE)

    def test_its_settings_train_its_model_again(self, results: Results) -> None:
        report = DATA / "finished" / "report"
        settings = str(report / "recommended.yaml")
        trained = results("train", *TASK, "--settings", settings, "--seeds", "2", "--export", "m")
        holds(trained, EXPECTED["train"], rel=RETRAINED)
        assert TransferSettings.load(settings).to_dict() == EXPECTED["search"]["recommended"]
        holds(json.loads(Path("m/model.json").read_text()), json.loads((report / "model/model.json").read_text()))
        before = load_file(report / "model" / "weights.safetensors")
        again = load_file("m/weights.safetensors")
        assert again.keys() == before.keys()
        for name, value in before.items():
            assert again[name].numpy() == pytest.approx(value.numpy(), rel=RETRAINED, abs=RETRAINED), name

    def test_its_model_predicts_the_same(self, results: Results) -> None:
        found = results("predict", str(DATA / "finished" / "report" / "model"), "images")
        assert len(found) == 60
        holds(found, EXPECTED["predict"], rel=1e-5)


class TestHalfFinishedStudy:
    def test_it_is_listed_and_reported(self, halfway: StudyRecord, results: Results) -> None:
        holds(results("studies"), EXPECTED["halfway"])
        report = Path(results("report", "s")["report"])
        holds(rows(report.with_name("trials.csv")), rows(DATA / "halfway" / "trials.csv"))

    def test_its_checkpoint_is_read(self) -> None:
        identity, curve = EXPECTED["checkpoint"]["identity"], EXPECTED["checkpoint"]["curve"]
        path = DATA / "halfway" / "s" / "checkpoints" / "trial-0002.pt"
        state = load_checkpoint(path, identity)
        assert state is not None
        assert state.keys() >= {"identity", "curve", "state", "kept", "optimizer", "anchors", "average"}
        assert [EpochResult.from_dict(result) for result in state["curve"]] == [
            EpochResult.from_dict(result) for result in curve
        ]
        assert load_checkpoint(path, {**identity, "seed": 0}) is None

    def test_the_same_command_goes_on_within_the_trial(
        self, halfway: StudyRecord, results: Results, workplace: Path
    ) -> None:
        assert [trial.end for trial in halfway.trials] == ["complete", "complete", "running"]
        killed = halfway.trials[2]
        assert len(killed.curve) == killed.epochs_spent == 3
        [checkpoint] = (workplace / ".nbt" / "s" / "checkpoints").iterdir()

        found = results(*SEARCH, "--budget", "6")
        assert not checkpoint.exists()
        after = study()
        assert after.trials[:2] == halfway.trials[:2]
        assert (after.trials[2].end, after.trials[2].curve) == ("interrupted", killed.curve)
        resumed = after.trials[3]
        assert (resumed.settings, resumed.origin) == (killed.settings, killed.origin)
        assert resumed.facts["continues"] == 2
        assert resumed.epochs_spent == 3, "epochs 4 to 6 alone: its checkpoint was taken"
        assert resumed.curve[:3] == killed.curve, "with the seconds that they took then"
        assert [trial.origin for trial in after.trials[4:6]] == [
            "anchor: FAST",
            "recommended: profile and experience",
        ]
        assert found["trials"]["interrupted"] == 1
        assert found["trials"]["failed"] == 0
        assert found["epochs"] == {"spent": 36, "budget": 36}
        assert found["test"].keys() == {"recommended", "baseline"}
        [listed] = results("studies")
        assert listed["finished"] is True

        # The finished study is the same search, never killed.
        shutil.copy(DATA / "finished" / "studies.db", workplace / ".nbt" / "studies.db")
        whole = study()
        assert len(resumed.curve) == 6
        for found_trial, expected in zip((*after.trials[:2], *after.trials[3:6]), whole.trials[:5], strict=True):
            holds(found_trial.settings.to_dict(), expected.settings.to_dict(), rel=RETRAINED)
        same_training(resumed.curve, whole.trials[2].curve)


class TestRecordedTables:
    def test_a_table_grows(self, results: Results) -> None:
        before = RecordedTable.load("table.parquet")
        assert len(before.runs) == EXPECTED["record"]["runs"]
        assert max(one.val_accuracy for one in before.runs) == EXPECTED["record"]["best"]
        holds(results(*RECORD, "--trials", "6", "--out", "table.parquet"), EXPECTED["record"])
        assert by_run(RecordedTable.load("table.parquet")) == by_run(before)
        assert results(*RECORD, "--trials", "7", "--out", "table.parquet")["settings"] == 7
        after = by_run(RecordedTable.load("table.parquet"))
        assert {key: after[key] for key in by_run(before)} == by_run(before)
        assert after.keys() - by_run(before).keys() == {(6, 0)}

    def test_a_killed_recording_goes_on(self, results: Results) -> None:
        journal = Path("killed.parquet.journal")
        shutil.copy(DATA / "killed.parquet.journal.txt", journal)
        kept = [RecordedRun.from_row(json.loads(line)) for line in journal.read_text().splitlines()[1:]]
        assert len(kept) == 3
        holds(results(*RECORD, "--trials", "6", "--out", "killed.parquet")["runs"], 7)
        assert not journal.exists()
        after, whole = by_run(RecordedTable.load("killed.parquet")), by_run(RecordedTable.load("table.parquet"))
        for one in kept:
            holds(after[one.setting, one.seed].to_row(), one.to_row(), rel=SINGLE)
        assert after.keys() == whole.keys()
        for key, one in whole.items():
            assert after[key].settings == one.settings
            same_training(after[key].curve, one.curve)

    def test_methods_are_replayed(self, results: Results) -> None:
        words = ["--seeds", "2", "--budget", "4", "--methods", "random,asha"]
        holds(results("replay", "table.parquet", *words), rephrased(EXPECTED["replay"]), rel=1e-6)

    def test_experience_guides(self, results: Results) -> None:
        [table] = load_experience("experience", Space.load("non_binary"))
        assert len(table.runs) == EXPECTED["experience"]["runs"] == 27
        assert max(one.val_accuracy for one in table.runs) == EXPECTED["experience"]["best"]
        found = results("fit", *TASK, "--recommend", "--experience", "experience", "--epochs", "6")
        assert found["guide"]["tables"] == ["digits · conv3(width=8)"]
        elsewhere = {name: found["facts"][name] for name in ("dataset", "weights", "seconds")}
        expected = {**rephrased(EXPECTED["fit"]), "facts": {**EXPECTED["fit"]["facts"], **elsewhere}}
        holds(found, expected, rel=RETRAINED)


class TestStreams:
    @pytest.fixture(autouse=True)
    def streams(self, workplace: Path) -> None:
        shutil.copytree(DATA / "streams", workplace / ".nbt" / "streams")

    def test_a_finished_one_is_shown_at_once(self, results: Results) -> None:
        found, expected = results(*STREAM, "--method", "ewc"), dict(EXPECTED["stream"])
        del expected["dataset"], expected["command"]  # where the images are now
        holds(found, expected)

    def test_a_killed_one_goes_on(self, results: Results, workplace: Path) -> None:
        expected = EXPECTED["stream to go on"]
        folder = workplace / ".nbt" / "streams" / expected["name"]
        before = json.loads((folder / "stream.json").read_text())
        found = results(*STREAM, "--method", "dlcft")
        assert not (folder / "checkpoint.pt").exists()
        [method], [wanted] = found["methods"], expected["methods"]
        holds({**method, "seconds": 0.0}, {**wanted, "seconds": 0.0}, rel=RETRAINED)
        after = json.loads((folder / "stream.json").read_text())
        [first] = before["result"]["scores"]
        holds(after["result"]["scores"][0], first)
        assert len(after["result"]["scores"]) == 2


def test_weights_are_injected_as_they_were(results: Results) -> None:
    words = ["--teacher", "conv3(width=8)=source.safetensors", "--student", "conv3(width=6)"]
    holds(results("inject", *words, "--out", "injected.safetensors"), EXPECTED["inject"])
    before, again = load_file(DATA / "injected.safetensors"), load_file("injected.safetensors")
    assert again.keys() == before.keys()
    for name, value in before.items():
        assert again[name].numpy() == pytest.approx(value.numpy(), rel=1e-5, abs=1e-6), name
    shutil.copy(DATA / "injected.safetensors", "before.safetensors")
    student = ["--dataset", "images", "--backbone", "conv3(width=6)"]
    now, then = (results("fit", *student, "--weights", f"{name}.safetensors") for name in ("injected", "before"))
    assert now["facts"]["weights_hash"] == then["facts"]["weights_hash"]


def by_run(table: RecordedTable) -> dict[tuple[int, int], RecordedRun]:
    return {(one.setting, one.seed): one for one in table.runs}


def mlflow_runs(database: Path) -> dict[str, Any]:
    """What MLflow's database says of every run, by its name."""
    connection = sqlite3.connect(database)
    runs: dict[str, Any] = {}
    for uuid, name in connection.execute("select run_uuid, name from runs").fetchall():
        runs[name] = {}
        for table in ("tags", "params", "latest_metrics"):
            found = connection.execute(f"select key, value from {table} where run_uuid = ?", (uuid,))
            runs[name][table] = {key: value for key, value in found if not key.startswith("mlflow.")}
    connection.close()
    return runs
