"""Files written by version c8d5bce load, give the same results and can be resumed; see tests/artifacts/README.md.

Every test works on a copy. Values that are read must be equal; values that are trained again must agree within a
tolerance, because processors round differently. New keys and columns are allowed, existing ones must be kept.
"""

from __future__ import annotations

import copy
import csv
import json
import logging
import re
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
from nbt.tuning.tuned_recipes import TUNED_DEFAULT

DATA = Path(__file__).resolve().parent / "artifacts" / "c8d5bce"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))

# The commands of tests/artifacts/make_artifacts.py.
BACKBONE = ["--dataset", "images", "--backbone", "conv3(width=8)"]
TASK = [*BACKBONE, "--weights", "source.safetensors"]
RECORD = ["record", *TASK, "--epochs", "4"]
SEARCH = ["search", *TASK, "--epochs", "6", "--final-seeds", "2", "--study", "s", "--experience", "experience"]
STREAM = ["continual", *BACKBONE, "--weights", "none", "--scenario", "data", "--tasks", "2", "--epochs", "2"]

# Parts of displayed sentences that were rephrased since c8d5bce; all other texts must be equal.
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
    "a head takes about 8 of the 6 epochs to be learned again": (
        "a reset head needs about 8 epochs to recover, a trial has 6"
    ),
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
    "give its images with --source-data": "give its images to nbt fit with --source-data",
    "nothing in the profile speaks for it": "the profile gives no reason for it",
    "Random settings to full length, without anchors.": "Random settings; no pruning and no baseline recipes.",
    "the lower half is stopped at a third": "the lower half of the trials is stopped at one third",
    # In trials.csv and MLflow; the stored origins are the same.
    "anchor: ": "baseline: ",
    "recommended: profile and experience": "initial settings: profile and experience",
}

# Values that differ from those of c8d5bce because the value of a training is now that of its last epoch, by output and
# path: accuracies and losses of c8d5bce are those of the best epoch. Test results do not differ: c8d5bce, too, kept the
# last epoch of a training without validation images. The trials of the replayed table rank differently, and their test
# accuracies are closer to each other. A trial that is not of full length has no accuracy.
LAST_EPOCH: dict[str, dict[str, Any]] = {
    "studies": {"/0/best": 0.5833333333333334},
    "trials.csv": {
        "/0/val_loss": "0.9506446520487467",
        "/1/val_accuracy": "0.3333333333333333",
        "/1/val_loss": "0.9955422083536783",
        "/2/val_accuracy": "0.5",
        "/2/val_loss": "1.0793360074361165",
        "/3/val_accuracy": "0.5833333333333334",
        "/3/val_loss": "0.9487271308898926",
        "/4/val_accuracy": "0.5833333333333334",
        "/4/val_loss": "0.9890882968902588",
        "/5/val_accuracy": "0.5833333333333334",
        "/5/val_loss": "0.9936951001485189",
    },
    "replay": {
        "/tasks/0/median": 0.3749999925494194,
        "/tasks/0/image_noise": 0.14052851398252672,
        "/tasks/0/within_half_a_point": 2,
        "/summary/0/epochs": 16.0,
        "/summary/0/epochs_low": 16.0,
        "/summary/0/never": 1,
        "/summary/0/epochs_stay": 16.0,
        "/summary/0/epochs_smoothed": 16.0,
        "/summary/0/regret": 0.0833333358168602,
        "/summary/0/regret_low": 0.0,
        "/summary/0/normalised_regret": 1.2820512438431786,
        "/summary/0/normalised_regret_low": 1.2307691940894516,
        "/summary/0/normalised_regret_high": 1.3333332935969058,
        "/summary/1/epochs": 16.0,
        "/summary/1/epochs_low": 16.0,
        "/summary/1/epochs_high": 16.0,
        "/summary/1/never": 0,
        "/summary/1/epochs_stay": 16.0,
        "/summary/1/epochs_smoothed": 16.0,
        "/summary/1/regret": 0.0,
        "/summary/1/regret_low": 0.0,
        "/summary/1/regret_high": 0.0,
        "/summary/1/normalised_regret": 1.2307691940894516,
        "/summary/1/normalised_regret_low": 1.2307691940894516,
        "/summary/1/normalised_regret_high": 1.2307691940894516,
        "/overall/0/normalised_regret": 1.2820512438431786,
        "/overall/0/normalised_regret_low": 1.2307691940894516,
        "/overall/0/normalised_regret_high": 1.3333332935969058,
        "/overall/0/rank": 1.75,
        "/overall/0/rank_high": 2.0,
        "/overall/1/normalised_regret": 1.2307691940894516,
        "/overall/1/normalised_regret_low": 1.2307691940894516,
        "/overall/1/normalised_regret_high": 1.2307691940894516,
        "/overall/1/rank": 1.25,
        "/overall/1/rank_low": 1.0,
        "/overall/1/p_regret": 0.37109336952269756,
    },
    "train": {
        "/validation/mean": 0.7083333333333333,
        "/validation/low": 0.17890813599272082,
        "/seeds/0/val_accuracy": 0.6666666666666666,
        "/seeds/1/val_accuracy": 0.75,
    },
    "search": {
        "/validation/mean": 0.6666666666666667,
        "/versus_default/mean": 0.125,
        "/versus_default/low": -0.4044251973406118,
        "/versus_default/high": 0.6544251973406118,
        "/verdict": "Trial 4 cannot be distinguished from the default recipe: +12.5 points (95 % "
        "interval -40.4 to +65.4, 2 seeds).",
    },
    "halfway trials.csv": {
        "/0/val_loss": "0.9506446520487467",
        "/1/val_accuracy": "0.3333333333333333",
        "/1/val_loss": "0.9955422083536783",
        "/2/val_accuracy": "",
        "/2/val_loss": "",
    },
}

# Relative tolerances of values that are trained again, and of values that tables store in single precision.
RETRAINED = 1e-3
SINGLE_PRECISION = 1e-6

RunJson = Callable[..., Any]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder that the commands run in, with their input files only."""
    for name in ("images", "experience"):
        shutil.copytree(DATA / name, tmp_path / name)
    for name in ("source.safetensors", "table.parquet"):
        shutil.copy(DATA / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def restored_logging() -> Any:
    """Restores the logger of nbt, which the commands configure."""
    log = logging.getLogger("nbt")
    before = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture
def run_json(capsys: pytest.CaptureFixture[str]) -> RunJson:
    """Returns a function that runs a command line and returns its JSON output."""

    def command(*arguments: str) -> Any:
        capsys.readouterr()
        code = run([*arguments, "--json", "-q"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return command


@pytest.fixture
def finished(working_folder: Path) -> StudyRecord:
    """Returns the finished study, with its report."""
    (working_folder / ".nbt").mkdir()
    shutil.copy(DATA / "finished" / "studies.db", working_folder / ".nbt")
    shutil.copytree(DATA / "finished" / "report", working_folder / "reports" / "s")
    return stored_study()


@pytest.fixture
def half_finished(working_folder: Path) -> StudyRecord:
    """Returns the study whose driver was killed in its third trial, with the checkpoint."""
    shutil.copytree(DATA / "halfway", working_folder / ".nbt")
    return stored_study()


def stored_study() -> StudyRecord:
    return read_study(resolve_storage(None), "s")


def assert_contains(value: Any, expected: Any, rel: float = 1e-12, path: str = "") -> None:
    """Checks that a JSON value equals the expected one; mappings may have further keys."""
    if isinstance(expected, dict):
        missing = expected.keys() - value.keys()
        assert not missing, f"{path}: {missing}"
        for name, expected_item in expected.items():
            assert_contains(value[name], expected_item, rel, f"{path}/{name}")
    elif isinstance(expected, list):
        assert len(value) == len(expected), path
        for index, expected_item in enumerate(expected):
            assert_contains(value[index], expected_item, rel, f"{path}/{index}")
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, rel=rel, abs=rel), path
    else:
        assert value == expected, path


RENAMED = {"forecast/to_beat": "pruning_to_beat"}
NOT_IN_THE_SPACE = (
    *("curvature", "epochs", "method", "penalty_strength", "pretrain_scheme", "pretrain_zap_period"),
    *("teacher", "views", "warmup"),
)


def leave_out_what_moved(run: dict[str, Any]) -> None:
    """Removes from an MLflow run of c8d5bce what is not there any more, and renames what has another name.

    Fit measures and weights of priors are files today, the parameters of a trial are the dimensions of its space, and
    what a trial's curves say is no metric of its own.
    """
    del run["tags"]["nbt.content"]
    is_study = run["tags"]["kind"] == "study"
    run["tags"] = {
        name: rephrased(value) if name == "origin" else value
        for name, value in run["tags"].items()
        if not name.startswith("guide")
    }
    left_out = () if is_study else ("best_val_accuracy", "epochs")
    run["latest_metrics"] = {
        RENAMED.get(name, re.sub("^forecast/", "pruning_forecast_", re.sub("^pruning/", "pruning_", name))): value
        for name, value in run["latest_metrics"].items()
        if not name.startswith(("fit", "guide")) and name not in left_out
    }
    for name in () if is_study else NOT_IN_THE_SPACE:
        run["params"].pop(name, None)


def rephrased(stored: Any) -> Any:
    """Returns a stored value with its sentences in their current wording."""
    if isinstance(stored, dict):
        return {name: rephrased(value) for name, value in stored.items()}
    if isinstance(stored, list):
        return [rephrased(value) for value in stored]
    if isinstance(stored, str):
        for old, new in REPHRASED.items():
            stored = stored.replace(old, new)
    return stored


def by_last_epoch(output: str, expected: Any) -> Any:
    """Returns an expected value with the changes of `LAST_EPOCH`."""
    changed = copy.deepcopy(expected)
    for path, value in LAST_EPOCH[output].items():
        *parents, last = path.removeprefix("/").split("/")
        item = changed
        for name in parents:
            item = item[int(name) if isinstance(item, list) else name]
        assert last in item
        item[last] = value
    return changed


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_curve(curve: tuple[EpochResult, ...], expected: tuple[EpochResult, ...]) -> None:
    """Checks that two learning curves agree, except for their times."""
    untimed = [[{**result.to_dict(), "seconds": 0.0} for result in results] for results in (curve, expected)]
    assert_contains(*untimed, rel=RETRAINED)


class TestFinishedStudy:
    def test_finished_study_is_listed_and_reported(
        self, finished: StudyRecord, run_json: RunJson, working_folder: Path
    ) -> None:
        assert_contains(run_json("studies"), by_last_epoch("studies", EXPECTED["studies"]))
        report = Path(run_json("report", "s", "--out", "again")["report"])
        assert report == working_folder / "again" / "s" / "report.html"
        before, again = DATA / "finished" / "report", report.parent
        expected = by_last_epoch("trials.csv", rephrased(rows(before / "trials.csv")))
        assert_contains(rows(again / "trials.csv"), expected)
        assert_contains(json.loads((again / "fit.json").read_text()), json.loads((before / "fit.json").read_text()))
        text = rephrased((before / "recommended.yaml").read_text())
        for best_epoch, last_epoch in (("70.8 %", "66.7 %"), ("+16.7", "+12.5")):
            assert best_epoch in text
            text = text.replace(best_epoch, last_epoch)
        # Version 0.1 had Student's t intervals of the runs.
        interval, again_text = re.compile(r"interval [^,)]*"), (again / "recommended.yaml").read_text()
        command = next(line for line in again_text.splitlines(keepends=True) if line.startswith("# train a model"))
        assert "nbt train --dataset" in command, "new since version 0.1"
        again_text = again_text.replace(command, "")
        assert interval.sub("", again_text) == interval.sub("", text)
        for text in (report.read_text(), (again / "report.md").read_text()):
            assert "+12.5" in text and "66.7" in text, "gain over the default recipe, test accuracy"
        assert [trial.val_accuracy for trial in finished.trials] == [
            pytest.approx(float(row["val_accuracy"])) for row in expected
        ]

    def test_the_same_command_repeats_the_finals_on_folds_once_and_trains_no_trial(
        self, finished: StudyRecord, run_json: RunJson, working_folder: Path
    ) -> None:
        assert [final.name for final in finished.finals] == ["trial 4", "trial 5", "default recipe"]
        assert {run.fold for final in finished.finals for run in final.runs} == {None}
        outputs, studies, weights = [], [], []
        for _ in range(2):
            outputs.append(run_json(*SEARCH, "--budget", "6"))
            studies.append(stored_study())
            file = (working_folder / "reports/s/model/weights.safetensors").stat()
            weights.append((file.st_ino, file.st_mtime_ns))
        after = studies[0]
        assert after.trials == finished.trials
        assert len(after.finals) == 2 and after.final("default recipe") is not None
        assert {run.fold for final in after.finals for run in final.runs} == {1, 2}
        assert after.profile == finished.profile
        # The second time, nothing is trained.
        assert outputs[0]["recommended"] == outputs[1]["recommended"]
        assert after.finals == studies[1].finals and after.test == studies[1].test
        assert after.test_evaluations == studies[1].test_evaluations
        assert weights[0] == weights[1]

    def test_a_larger_budget_resumes_the_search(self, finished: StudyRecord, run_json: RunJson) -> None:
        output = run_json(*SEARCH, "--budget", "7")
        after = stored_study()
        assert after.trials[:6] == finished.trials
        assert after.trials[6].origin == f"recommended: {TUNED_DEFAULT}", "new since version 0.1"
        assert output["epochs"] == {"spent": after.epochs_spent, "budget": 42}
        assert output["cost"]["budget"] == 7
        assert 6.0 < output["cost"]["spent"] <= 7.0, "an epoch of the stored trials counts as one of the default recipe"
        assert after.profile == finished.profile
        assert {run.fold for final in after.finals for run in final.runs} == {1, 2}, "new finals, on folds"

    def test_mlflow_runs_are_equal(self, finished: StudyRecord, run_json: RunJson, working_folder: Path) -> None:
        count = len(EXPECTED["mlflow"])
        assert run_json("sync", "s") == {"written": count, "updated": 0, "unchanged": 0}
        assert run_json("sync", "s") == {"written": 0, "updated": 0, "unchanged": count}
        runs, expected = mlflow_runs(working_folder / ".nbt" / "mlflow.db"), copy.deepcopy(EXPECTED["mlflow"])
        # The last epoch: other values in names and in the study's run, a new metric "value", and so other hashes.
        for entry in expected.values():
            leave_out_what_moved(entry)
        best = max(trial.val_accuracy or 0.0 for trial in finished.trials)
        expected["s"]["latest_metrics"] |= {"best_val_accuracy": best, "final_gain": 1 / 8, "final_val_accuracy": 2 / 3}
        interval = finished.finals[0].validation
        expected["s"]["latest_metrics"] |= {
            f"final_val_accuracy_{end}": getattr(interval, end) for end in ("low", "high")
        }
        values = {entry["latest_metrics"].get("value"): name for name, entry in runs.items() if " | " in name}
        assert all(name.endswith(f"| {value:.3f}") for value, name in values.items())
        assert_contains(by_title(runs), by_title(expected))

    def test_study_can_be_used_as_experience(self, finished: StudyRecord, run_json: RunJson) -> None:
        [row] = run_json("record", "--from-studies", "s", "--out", "mine")["tables"]
        [table] = load_experience("mine", Space.load("non_binary"))
        assert (row["runs"], len(table.runs)) == (6, 6)
        assert [recorded.settings for recorded in table.runs] == [trial.settings for trial in finished.trials]
        accuracies = [trial.val_accuracy for trial in finished.trials]
        assert [recorded.val_accuracy for recorded in table.runs] == pytest.approx(accuracies, rel=SINGLE_PRECISION)

    def test_recommended_settings_reproduce_the_model(self, run_json: RunJson) -> None:
        report = DATA / "finished" / "report"
        settings = str(report / "recommended.yaml")
        trained = run_json("train", *TASK, "--settings", settings, "--seeds", "2", "--export", "m")
        expected = by_last_epoch("train", EXPECTED["train"])
        # Later runs validate other folds of the seed of the first one; version 0.1 drew a split with each seed.
        assert [run["seed"] for run in trained["seeds"]] == [run["seed"] for run in expected["seeds"]]
        expected |= {"validation": trained["validation"], "seeds": [expected["seeds"][0], trained["seeds"][1]]}
        assert_contains(trained, expected, rel=RETRAINED)
        assert TransferSettings.load(settings).to_dict() == EXPECTED["search"]["recommended"]
        assert_contains(
            json.loads(Path("m/model.json").read_text()), json.loads((report / "model/model.json").read_text())
        )
        before = load_file(report / "model" / "weights.safetensors")
        again = load_file("m/weights.safetensors")
        assert again.keys() == before.keys()
        for name, value in before.items():
            assert again[name].numpy() == pytest.approx(value.numpy(), rel=RETRAINED, abs=RETRAINED), name

    def test_predictions_of_the_model_are_equal(self, run_json: RunJson) -> None:
        output = run_json("predict", str(DATA / "finished" / "report" / "model"), "images")
        assert len(output) == 60
        assert_contains(output, EXPECTED["predict"], rel=1e-5)


class TestHalfFinishedStudy:
    def test_half_finished_study_is_listed_and_reported(self, half_finished: StudyRecord, run_json: RunJson) -> None:
        assert_contains(run_json("studies"), EXPECTED["halfway"])
        report = Path(run_json("report", "s")["report"])
        expected = by_last_epoch("halfway trials.csv", rephrased(rows(DATA / "halfway" / "trials.csv")))
        assert_contains(rows(report.with_name("trials.csv")), expected)

    def test_checkpoint_is_loaded(self) -> None:
        identity, curve = EXPECTED["checkpoint"]["identity"], EXPECTED["checkpoint"]["curve"]
        path = DATA / "halfway" / "s" / "checkpoints" / "trial-0002.pt"
        state = load_checkpoint(path, identity)
        assert state is not None
        assert state.keys() >= {"identity", "curve", "state", "kept", "optimizer", "anchors", "average"}
        assert [EpochResult.from_dict(result) for result in state["curve"]] == [
            EpochResult.from_dict(result) for result in curve
        ]
        assert load_checkpoint(path, {**identity, "seed": 0}) is None

    def test_the_same_command_resumes_the_interrupted_trial(
        self, half_finished: StudyRecord, run_json: RunJson, working_folder: Path
    ) -> None:
        assert [trial.end for trial in half_finished.trials] == ["complete", "complete", "running"]
        killed = half_finished.trials[2]
        assert len(killed.curve) == killed.epochs_spent == 3
        [checkpoint] = (working_folder / ".nbt" / "s" / "checkpoints").iterdir()

        output = run_json(*SEARCH, "--budget", "6")
        assert not checkpoint.exists()
        after = stored_study()
        assert after.trials[:2] == half_finished.trials[:2]
        assert (after.trials[2].end, after.trials[2].curve) == ("interrupted", killed.curve)
        resumed = after.trials[3]
        assert (resumed.settings, resumed.origin) == (killed.settings, killed.origin)
        assert resumed.facts["continues"] == 2
        assert resumed.epochs_spent == 3, "only epochs 4 to 6 are trained, from the checkpoint"
        assert resumed.curve[:3] == killed.curve, "including the stored times"
        assert [trial.origin for trial in after.trials[4:6]] == [
            "anchor: FAST",
            f"recommended: {TUNED_DEFAULT}",
        ]
        assert output["trials"]["interrupted"] == 1
        assert output["trials"]["failed"] == 0
        assert output["epochs"] == {"spent": after.epochs_spent, "budget": 36}
        assert output["cost"]["spent"] <= output["cost"]["budget"] == 6
        assert output["test"].keys() == {"recommended", "baseline", "majority"}
        [listed] = run_json("studies")
        assert listed["finished"] is True

        # The finished study is the same search without an interruption, but for the recommended settings, in which
        # dimensions that nothing judges were random in version 0.1.
        shutil.copy(DATA / "finished" / "studies.db", working_folder / ".nbt" / "studies.db")
        uninterrupted = stored_study()
        assert len(resumed.curve) == 6
        for stored, expected in zip((*after.trials[:2], *after.trials[3:5]), uninterrupted.trials[:4], strict=True):
            assert_contains(stored.settings.to_dict(), expected.settings.to_dict(), rel=RETRAINED)
        assert_same_curve(resumed.curve, uninterrupted.trials[2].curve)


class TestRecordedTables:
    def test_runs_are_added_to_a_table(self, run_json: RunJson) -> None:
        before = RecordedTable.load("table.parquet")
        assert len(before.runs) == EXPECTED["record"]["runs"]
        assert max(recorded.val_accuracy for recorded in before.runs) == EXPECTED["record"]["best"]
        assert_contains(run_json(*RECORD, "--trials", "6", "--out", "table.parquet"), EXPECTED["record"])
        assert by_run(RecordedTable.load("table.parquet")) == by_run(before)
        assert run_json(*RECORD, "--trials", "7", "--out", "table.parquet")["settings"] == 7
        after = by_run(RecordedTable.load("table.parquet"))
        assert {key: after[key] for key in by_run(before)} == by_run(before)
        assert after.keys() - by_run(before).keys() == {(6, 0)}

    def test_a_killed_recording_is_resumed(self, run_json: RunJson) -> None:
        journal = Path("killed.parquet.journal")
        shutil.copy(DATA / "killed.parquet.journal.txt", journal)
        kept = [RecordedRun.from_row(json.loads(line)) for line in journal.read_text().splitlines()[1:]]
        assert len(kept) == 3
        assert_contains(run_json(*RECORD, "--trials", "6", "--out", "killed.parquet")["runs"], 7)
        assert not journal.exists()
        after, complete = by_run(RecordedTable.load("killed.parquet")), by_run(RecordedTable.load("table.parquet"))
        for recorded in kept:
            assert_contains(after[recorded.setting, recorded.seed].to_row(), recorded.to_row(), rel=SINGLE_PRECISION)
        assert after.keys() == complete.keys()
        for key, recorded in complete.items():
            assert after[key].settings == recorded.settings
            assert_same_curve(after[key].curve, recorded.curve)

    def test_replay_results_are_equal(self, run_json: RunJson) -> None:
        options = ["--seeds", "2", "--budget", "4", "--methods", "random,asha"]
        expected = by_last_epoch("replay", rephrased(EXPECTED["replay"]))
        assert_contains(run_json("replay", "table.parquet", *options), expected, rel=1e-6)

    def test_profile_is_equal_and_the_recommendation_neutral_where_nothing_judges(self, run_json: RunJson) -> None:
        [table] = load_experience("experience", Space.load("non_binary"))
        assert len(table.runs) == EXPECTED["experience"]["runs"] == 27
        best_epochs = [max(result.val_accuracy or 0.0 for result in recorded.curve) for recorded in table.runs]
        assert max(best_epochs) == EXPECTED["experience"]["best"]
        assert max(recorded.val_accuracy for recorded in table.runs) == pytest.approx(0.8), "the last epoch"
        recommend = ["--recommend", "--experience", "experience", "--epochs", "6"]
        output = run_json("fit", *TASK, "--all-measures", *recommend)
        assert output["guide"]["tables"] == ["digits · conv3(width=8)"]
        new_facts = {name: output["facts"][name] for name in ("dataset", "weights", "seconds")}
        expected = {**rephrased(EXPECTED["fit"]), "facts": {**EXPECTED["fit"]["facts"], **new_facts}}
        recommended, guide = expected.pop("recommended"), expected.pop("guide")
        assert_contains(output, expected, rel=RETRAINED)
        assert output["recommended"].keys() == recommended.keys()
        assert output["guide"].keys() >= guide.keys()
        assert all(source.keys() >= guide["sources"][0].keys() for source in output["guide"]["sources"])
        default = TransferSettings().to_dict()
        assert "zap_scale" in output["guide"]["unjudged"]
        assert all(output["recommended"][name] == default[name] for name in output["guide"]["unjudged"])


class TestStreams:
    @pytest.fixture(autouse=True)
    def streams(self, working_folder: Path) -> None:
        shutil.copytree(DATA / "streams", working_folder / ".nbt" / "streams")

    def test_a_finished_stream_is_shown_without_training(self, run_json: RunJson) -> None:
        output, expected = run_json(*STREAM, "--method", "ewc"), dict(EXPECTED["stream"])
        del expected["dataset"], expected["command"]  # contain the current path of the images
        assert_contains(output, expected)

    def test_a_killed_stream_is_resumed(self, run_json: RunJson, working_folder: Path) -> None:
        expected = EXPECTED["stream to go on"]
        folder = working_folder / ".nbt" / "streams" / expected["name"]
        before = json.loads((folder / "stream.json").read_text())
        output = run_json(*STREAM, "--method", "dlcft")
        assert not (folder / "checkpoint.pt").exists()
        [method], [expected_method] = output["methods"], expected["methods"]
        assert_contains({**method, "seconds": 0.0}, {**expected_method, "seconds": 0.0}, rel=RETRAINED)
        after = json.loads((folder / "stream.json").read_text())
        [first] = before["result"]["scores"]
        assert_contains(after["result"]["scores"][0], first)
        assert len(after["result"]["scores"]) == 2


def test_injected_weights_are_equal(run_json: RunJson) -> None:
    options = ["--teacher", "conv3(width=8)=source.safetensors", "--student", "conv3(width=6)"]
    assert_contains(run_json("inject", *options, "--out", "injected.safetensors"), EXPECTED["inject"])
    before, again = load_file(DATA / "injected.safetensors"), load_file("injected.safetensors")
    assert again.keys() == before.keys()
    for name, value in before.items():
        assert again[name].numpy() == pytest.approx(value.numpy(), rel=1e-5, abs=1e-6), name
    shutil.copy(DATA / "injected.safetensors", "before.safetensors")
    student = ["--dataset", "images", "--backbone", "conv3(width=6)"]
    outputs = [run_json("fit", *student, "--weights", f"{name}.safetensors") for name in ("injected", "before")]
    assert outputs[0]["facts"]["weights_hash"] == outputs[1]["facts"]["weights_hash"]


def by_run(table: RecordedTable) -> dict[tuple[int, int], RecordedRun]:
    return {(recorded.setting, recorded.seed): recorded for recorded in table.runs}


def by_title(runs: dict[str, Any]) -> dict[str, Any]:
    """Returns runs of MLflow by their name without the value of the trial."""
    return {name.partition(" | ")[0]: entry for name, entry in runs.items()}


def mlflow_runs(database: Path) -> dict[str, Any]:
    """Returns tags, parameters and latest metrics of every run in MLflow's database, by the name of the run."""
    connection = sqlite3.connect(database)
    runs: dict[str, Any] = {}
    for uuid, name in connection.execute("select run_uuid, name from runs").fetchall():
        runs[name] = {}
        for table in ("tags", "params", "latest_metrics"):
            rows_of_run = connection.execute(f"select key, value from {table} where run_uuid = ?", (uuid,))
            runs[name][table] = {key: value for key, value in rows_of_run if not key.startswith("mlflow.")}
    connection.close()
    return runs
