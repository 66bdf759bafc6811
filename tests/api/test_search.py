"""`nbt.api.search` and related functions: small searches with real images, training, storage and MLflow."""

from __future__ import annotations

import json
import logging
import shlex
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nbt
from nbt import api
from nbt.errors import NbtError, UsageError
from nbt.fit.fit_profile import FitProfile
from nbt.models.backbone_spec import parse_backbone
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.exported_model import read_card
from nbt.tuning.baseline_recipes import from_scratch_recipe
from nbt.tuning.engines import worker_count
from nbt.tuning.job_clock import JobEstimate
from nbt.tuning.storage.records import StudyObserver, TrialRecord
from nbt.tuning.storage.studies import list_studies, resolve_storage
from nbt.tuning.target import Target
from nbt.tuning.tuned_recipes import TUNED_DEFAULT
from tests.conftest import REPOSITORY
from tests.sample_study import BEST, interrupted, sample_study, with_config

QUICK: dict[str, Any] = {"epochs": 2, "final_seeds": 2, "study": "s"}


@pytest.fixture(scope="module")
def task() -> Task:
    return nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Fitting models to the shipped tables takes seconds; only the tests of the priors do it.
    monkeypatch.setitem(QUICK, "experience", tmp_path_factory.mktemp("no-experience"))
    return tmp_path


class RecordingObserver(StudyObserver):
    def __init__(self, stop_after: int | None = None) -> None:
        self.ended: list[TrialRecord] = []
        self.stop_after = stop_after

    def trial_finished(self, trial: TrialRecord) -> None:
        self.ended.append(trial)

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        if self.stop_after is not None and len(self.ended) >= self.stop_after:
            raise KeyboardInterrupt


def test_a_storage_that_cannot_be_written_is_found_before_the_images_are_decoded(own_folder: Path) -> None:
    (own_folder / ".nbt").touch()
    shown: list[str] = []
    with pytest.raises(UsageError, match=r"^storage .*/\.nbt/studies\.db: .*/\.nbt is no folder"):
        nbt.search("digits", backbone="conv3(width=8)", budget=3, progress=lambda text, *_: shown.append(text))
    assert shown == []


def test_from_task_to_recommendation(task: Task, own_folder: Path) -> None:
    result = nbt.search(task, budget=4, **QUICK)
    record = result.record
    assert [trial.origin for trial in record.trials[:3]] == [
        "anchor: default recipe",
        "anchor: linear probe",
        "anchor: L2-SP",
    ]
    assert record.budget_spent <= record.epochs_budget == 8
    assert result.recommended == record.final(record.recommended).settings
    assert len(result.trials) == len(record.trials)
    assert {test.name for test in record.test} == {"recommended", "baseline"}
    folder = result.report_path.parent
    assert folder == own_folder / "reports" / "s"
    assert TransferSettings.load(folder / "recommended.yaml") == result.recommended
    assert "nbt predict" in (folder / "report.md").read_text(), "the report names the exported model"
    document = result.to_json()
    assert document.keys() >= {"study", "report", "recommended", "validation", "test", "trials", "epochs"}
    assert document["test"].keys() == {"recommended", "baseline", "majority"}
    for tested in document["test"].values():
        assert tested.keys() >= {"metric", "value", "low", "high", "n", "metrics"}
        assert tested["metrics"].keys() == {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss"}
    assert document["test"]["recommended"]["mean"] == document["test"]["recommended"]["value"]
    assert document["optimism"].keys() == {"value", "low", "high"}
    assert (result.test_confusion.to_numpy().sum(), len(result.test_classes)) == (
        document["test"]["recommended"]["n"],
        len(result.record.class_names),
    )
    assert {check["code"] for check in document["checks"]} >= {"NBT201", "NBT209"}
    assert document["calibration"]["temperature"] == read_card(folder / "model")["temperature"]
    assert document["clock"].keys() == {"prepare", "profile", "trials", "finals", "train", "report", "estimate"}
    assert all(seconds > 0.0 for seconds in document["clock"].values())
    assert document["clock"]["trials"] >= document["seconds"]


def test_a_budget_that_is_too_short_names_the_minimum(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.tuning import calibration

    def measured(source: object, seconds: float) -> None:
        source.epoch_seconds = 100.0

    monkeypatch.setattr(calibration.Calibration, "_end_round", measured)
    with pytest.raises(UsageError, match=r"budget 2m: too short .* give at least budget \d+s") as error:
        nbt.search(task, budget="2m", workers=1, **QUICK)
    minimum = int(str(error.value).split("at least budget ")[1].split("s")[0])
    assert list_studies(resolve_storage(None)) == [], "a search that was refused leaves no study behind"
    # A trial, two folds and the last training of two recipes, each of two epochs of at most 100 s.
    assert 5 * 200 < minimum < 7 * 200 * 1.5


def test_workers_run_the_same_baseline_recipes_as_one_process(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_count, "usable_cores", lambda: 2)
    seen: list[str] = []
    several = nbt.search(task, budget=4, progress=lambda what, *_: seen.append(what), **QUICK).record
    alone = nbt.search(task, budget=4, workers=1, **{**QUICK, "study": "alone"}).record
    assert "2 workers with 1 thread each: 2 usable cores" in seen
    assert {trial.facts["worker"] for trial in several.trials} == {0, 1}
    assert {trial.facts["worker"] for trial in alone.trials} == {0}
    for trial, other in zip(several.trials[:3], alone.trials[:3], strict=True):
        assert (trial.origin, trial.settings) == (other.origin, other.settings)
        assert [epoch.train_loss for epoch in trial.curve] == [epoch.train_loss for epoch in other.curve]
    assert {test.name for test in several.test} == {"recommended", "baseline"}


def test_a_search_measures_the_fit_once_and_reports_it(
    task: Task, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbt.fit import profile_builder as profile

    monkeypatch.setenv("NBT_CACHE", str(own_folder / "cache"))
    seen: list[str] = []
    nbt.search(task, budget=3, progress=lambda what, *_: seen.append(what), **QUICK)
    assert "measuring how conv3(width=8) fits" in seen
    [stored] = (own_folder / "reports" / "s").glob("fit.json")
    kept = json.loads(stored.read_text())
    assert kept["scalars"]["samples"] == len(task.split.train)

    def twice(*args: object, **options: object) -> None:
        raise AssertionError("a resumed study measures no second profile")

    monkeypatch.setattr(profile, "profile_fit", twice)
    again = nbt.search(task, budget=3, **QUICK)
    assert again.record.profile == kept
    assert not any("fit" in note for note in again.record.notes)


def test_a_search_continues_without_a_fit_profile(
    task: Task, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbt.fit import profile_builder as profile

    def refuse(*args: object, **options: object) -> None:
        raise ValueError("samples: too few")

    monkeypatch.setattr(profile, "profile_fit", refuse)
    result = nbt.search(task, budget=3, **QUICK)
    assert result.record.profile is None
    [note] = result.record.notes
    assert "could not be measured (ValueError: samples: too few)" in note
    folder = own_folder / "reports" / "s"
    assert note in (folder / "report.md").read_text()
    assert not (folder / "fit.json").exists()


def test_the_estimate_is_shown_before_models_that_are_not_cached_are_fitted(
    task: Task, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbt.tuning.transferred_priors import TransferredPriors

    monkeypatch.setenv("NBT_CACHE", str(own_folder / "cache"))
    events: list[str] = []

    class Observer(StudyObserver):
        def job_estimated(self, estimate: JobEstimate) -> None:
            events.append("estimate")

    def fit(self: TransferredPriors) -> None:
        events.append("fit")
        assert not self.is_fitted
        raise KeyboardInterrupt

    monkeypatch.setattr(TransferredPriors, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        nbt.search(task, budget=3, observers=[Observer()], **{**QUICK, "experience": None})
    assert events[0] == "estimate" and events[-1] == "fit"


def test_forests_of_learning_curves_are_fitted_only_for_their_pruner(
    task: Task, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbt.tuning.pruners.curve_forecast import CurveForecaster

    monkeypatch.setenv("NBT_CACHE", str(own_folder / "cache"))
    monkeypatch.setattr(CurveForecaster, "fit", None)
    record = nbt.search(task, budget=1, pruner="asha", **{**QUICK, "experience": None}).record
    assert len(record.prior_diagnostics["tables"]) >= 5


def test_a_search_is_guided_by_profile_and_shipped_tables(task: Task) -> None:
    record = nbt.search(task, budget=7, **{**QUICK, "experience": None, "epochs": 3}).record
    assert [trial.origin for trial in record.trials[4:6]] == [
        f"recommended: {TUNED_DEFAULT}",
        "recommended: profile and experience",
    ]
    assert [trial.origin for trial in record.trials[6:]] == ["sampler"] * len(record.trials[6:])
    assert record.pruner == "fit" and len(record.prior_diagnostics["tables"]) >= 5
    assert {source["name"] for source in record.prior_diagnostics["sources"]} >= {
        "moderate head rate",
        "recorded tasks",
    }
    assert all(source["after"] != source["mean"] for source in record.prior_diagnostics["sources"])
    assert any(trial.forecast is not None for trial in record.trials)


def test_a_search_without_heuristics_uses_the_plain_sampler(task: Task) -> None:
    record = nbt.search(task, budget=5, pruner="none", heuristics=False, **QUICK).record
    assert record.prior_diagnostics == {}
    assert {trial.origin for trial in record.trials[4:]} == {"sampler"}


def test_a_search_with_a_teacher_tries_an_injection(own_folder: Path) -> None:
    from safetensors.torch import save_file

    from nbt.models.weights import load_pretrained_weights

    save_file(
        dict(load_pretrained_weights(parse_backbone("conv3(width=9)"), "none", image_size=28).w0),
        own_folder / "t.safetensors",
    )
    written, teacher = (f"conv3(width=9)={path}" for path in ("t.safetensors", own_folder / "t.safetensors"))
    student: dict[str, Any] = {"backbone": "conv3(width=8)", "weights": "none", "shots": 6}
    record = nbt.search("digits", budget=7, teacher=written, **student, **QUICK).record
    assert [trial.origin for trial in record.trials[4:7]] == [
        "recommended: injection",
        f"recommended: {TUNED_DEFAULT}",
        "recommended: profile and experience",
    ]
    injected = record.trials[4]
    assert (injected.settings.source.init, injected.settings.source.teacher) == ("inject", teacher)
    assert injected.state in ("complete", "pruned")
    assert record.config.teacher == teacher
    assert teacher in Path("reports/s/report.md").read_text(), "the printed command is valid in any folder"
    assert 0.5 < record.dataset["tli_similarity"] < 1.0
    assert "inject by similarity" in {source["name"] for source in record.prior_diagnostics["sources"]}
    with pytest.raises(UsageError, match=r"teacher .*before, not given now"):
        nbt.search("digits", budget=8, **student, **QUICK)


def test_a_search_chooses_among_several_teachers(own_folder: Path) -> None:
    from nbt.models.weights import load_pretrained_weights
    from nbt.settings.teacher_names import parse_teacher_names

    for width in (9, 40):
        state = load_pretrained_weights(parse_backbone(f"conv3(width={width})"), "none", image_size=28).w0
        torch.save(dict(state), own_folder / f"{width}.pth")
    far, near = (f"conv3(width={width})={own_folder / f'{width}.pth'}" for width in (40, 9))
    student: dict[str, Any] = {"backbone": "conv3(width=8)", "weights": "none", "shots": 6}
    record = nbt.search("digits", budget=7, teacher=[far, near], **student, **QUICK).record
    assert parse_teacher_names(record.config.teacher) == (far, near)
    similarities = record.dataset["tli_similarities"]
    assert similarities[near] == record.dataset["tli_similarity"] > similarities[far]
    injected = [trial for trial in record.trials if trial.origin.startswith("recommended: injection of ")]
    names = [trial.settings.source.teacher for trial in injected]
    assert names == [near, far], "each is tried, the most similar first"
    assert injected[0].origin == "recommended: injection of conv3(width=9)"
    assert "inject the most similar" in {source["name"] for source in record.prior_diagnostics["sources"]}
    resumed = nbt.search("digits", budget=8, teacher=[near, far], **student, **QUICK).record
    assert len(resumed.trials) > len(record.trials), "the order of the teachers does not matter"
    with pytest.raises(UsageError, match="teacher"):
        nbt.search("digits", budget=9, teacher=near, **student, **QUICK)


def test_without_experience_only_the_priors_guide(task: Task) -> None:
    record = nbt.search(task, budget=4, **QUICK).record
    assert record.experience == "no recorded tables"
    assert record.prior_diagnostics["tables"] == []
    assert record.prior_diagnostics["sources"] and not any(
        "recorded" in source["name"] for source in record.prior_diagnostics["sources"]
    )


def test_failing_prior_diagnostics_do_not_end_the_search(
    task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from nbt.tuning import prior_diagnostics

    def refuse(*args: object) -> None:
        raise FloatingPointError("no such number")

    monkeypatch.setattr(prior_diagnostics, "diagnose_priors", refuse)
    record = nbt.search(task, budget=3, **QUICK).record
    assert record.prior_diagnostics == {} and record.recommended
    assert "could not be stored: no such number" in caplog.text


def test_studies_are_the_experience_of_the_next_search(task: Task, own_folder: Path) -> None:
    """The tables vary dimensions that do not apply to the task, such as the start by injection."""
    nbt.search(task, budget=16, pruner="none", heuristics=False, **QUICK)
    api.record_studies(["s"], out="mine")
    options = {**QUICK, "study": "next", "pruner": "asha", "experience": "mine"}
    record = nbt.search(task, budget=5, **options).record
    assert record.experience.startswith("1 recorded table of ")
    assert record.experience.endswith("mine; task similarity 1.00 to digits")
    assert record.prior_diagnostics["tables"] == ["digits · conv3(width=8)"]
    assert record.prior_diagnostics["sources"][-1]["name"] == "recorded tasks"
    recommended = api.recommend(FitProfile.from_dict(record.profile), epochs=2, experience="mine")
    assert recommended.guide["tables"] == ["digits · conv3(width=8)"]


def test_a_finished_study_keeps_the_experience_of_its_trials(task: Task, own_folder: Path) -> None:
    before = nbt.search(task, budget=1, pruner="asha", **{**QUICK, "experience": None}).record
    assert before.experience.startswith("15 recorded tables that come with nbt; ")
    after = nbt.search(task, budget=1, pruner="asha", **QUICK).record
    assert (after.experience, after.prior_diagnostics) == (before.experience, before.prior_diagnostics)
    more = nbt.search(task, budget=2, pruner="asha", **QUICK).record
    assert (more.experience, more.prior_diagnostics["tables"]) == ("no recorded tables", [])


def test_experience_that_is_not_used_is_named(task: Task, own_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    nbt.search(task, budget=2, pruner="none", heuristics=False, **QUICK)
    assert "no-experience" in caplog.text and "has no effect: only the model of the priors" in caplog.text
    caplog.clear()
    api.record_studies(["s"], out="mine")
    record = nbt.search(task, budget=1, **{**QUICK, "study": "next", "experience": "mine"}).record
    assert "--experience mine: 1 recorded table with 2 settings, but a model needs 12 settings" in caplog.text
    assert record.experience == "no recorded tables"


def test_bad_experience_writes_nothing(task: Task, own_folder: Path) -> None:
    (own_folder / "tables").mkdir()
    (own_folder / "tables" / "mine.parquet").write_bytes(b"no table")
    with pytest.raises(UsageError, match=r"mine\.parquet"):
        nbt.search(task, budget=4, **{**QUICK, "experience": "tables"})
    assert not (own_folder / ".nbt").exists() and not (own_folder / "reports").exists()


def test_the_search_runs_the_settings_recommended_before_training(task: Task) -> None:
    record = nbt.search(task, budget=6, **QUICK).record
    assert record.profile is not None
    early = api.recommend(FitProfile.from_dict(record.profile), epochs=2, experience=QUICK["experience"])
    assert early.settings == record.trials[5].settings
    assert [source["name"] for source in early.guide["sources"]] == [
        source["name"] for source in record.prior_diagnostics["sources"]
    ]
    tuned = api.recommend(FitProfile.from_dict(record.profile), epochs=2)
    assert (tuned.name, tuned.settings) == (TUNED_DEFAULT, record.trials[4].settings), "without tables of one's own"
    longer = api.recommend(FitProfile.from_dict(record.profile))
    reasons = str(longer.guide["sources"])
    assert longer.settings.epochs == 24 and "24 epochs" in reasons and "12 epochs" not in reasons
    binary = api.recommend(FitProfile.from_dict(record.profile), space="binary")
    assert binary.name == "" and binary.settings.epochs == 12, "a space that does not contain the tuned default"
    with pytest.raises(UsageError, match="epochs: 0"):
        api.recommend(FitProfile.from_dict(record.profile), epochs=0)


def test_fit_compares_backbones(own_folder: Path) -> None:
    backbones = [("conv3(width=8)", "none"), ("conv4(width=8)", "none")]
    profiles = api.fit("digits", backbones, samples=40, shots=12)
    assert [profile.facts["backbone"] for profile in profiles] == ["conv3(width=8)", "conv4(width=8)"]
    assert all(profile.scalars["samples"] == 40 for profile in profiles)
    with pytest.raises(UsageError, match="--samples: 4 images cannot show 5 classes"):
        api.fit("digits", backbones, samples=4, shots=12)
    assert list(own_folder.iterdir()) == []


def test_fit_uses_the_images_of_the_source(own_folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (own_folder / "source" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(own_folder / "source" / name / f"{i}.png")
    backbones = [("conv3(width=8)", "none")]
    [profile] = api.fit("digits", backbones, samples=40, shots=12, source_data=own_folder / "source")
    [without] = api.fit("digits", backbones, samples=40, shots=12)
    assert 0 < profile.scalars["emd_similarity"] <= 1
    assert "emd_similarity" in without.left_out


def test_the_same_call_resumes_to_the_new_budget_and_repeats_nothing(task: Task) -> None:
    first = nbt.search(task, budget=3, **QUICK)
    again = nbt.search(task, budget=3, **QUICK)
    assert again.record.trials == first.record.trials
    assert again.record.test_evaluations == 1
    more = nbt.search(task, budget=5, **QUICK)
    assert len(more.record.trials) >= 5
    assert list(more.record.trials[:3]) == list(first.record.trials)


def test_the_recommendation_of_a_stream_has_the_epochs_of_one_task() -> None:
    result = api.SearchResult(with_config(sample_study(), scenario="class", tasks=4), Path("report.html"))
    assert result.recommended == BEST.replace(epochs=3)
    assert result.to_json()["recommended"] == result.recommended.to_dict()


def test_interrupted_trials_are_not_counted_as_failed() -> None:
    record = sample_study()
    result = api.SearchResult(replace(record, trials=(*record.trials, interrupted(18))), Path("report.html"))
    assert result.to_json()["trials"] == {"complete": 10, "pruned": 7, "failed": 1, "interrupted": 1}
    assert result.trials["state"].value_counts()["interrupted"] == 1


def test_the_recommendation_is_reproduced_by_training_with_its_settings(task: Task, own_folder: Path) -> None:
    result = nbt.search(task, budget=3, **QUICK)
    trained = api.train(task, result.recommended, seeds=2, export=own_folder / "m")
    recommended = next(test for test in result.record.test if test.name == "recommended")
    assert trained.test.accuracy == recommended.accuracy, "the same seed, images and settings"
    assert trained.validation.n == 2
    assert (own_folder / "m" / "model.json").exists()


def test_an_interrupted_search_loses_nothing_and_resumes(task: Task) -> None:
    observer = RecordingObserver(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        nbt.search(task, budget=4, observers=[observer], **QUICK)
    kept = api.studies()[0]
    assert kept["trials"]["complete"] == 2
    assert kept["trials"]["running"] == 0
    assert Path("reports/s/report.html").exists(), "the report contains the finished trials"
    result = nbt.search(task, budget=4, **QUICK)
    assert [trial.number for trial in result.record.trials][:2] == [0, 1]
    assert result.record.cost <= 4.0


def test_a_tracking_server_that_is_down_stops_nothing(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with caplog.at_level(logging.WARNING, logger="nbt"):
        result = nbt.search(task, budget=3, tracking_uri=closed, **QUICK)
    assert result.record.recommended is not None
    assert sum("cannot be written" in message for message in caplog.messages) == 1
    counts = api.sync("s")
    assert counts["written"] >= 4
    assert api.sync("s") == {"written": 0, "updated": 0, "unchanged": counts["written"]}


def test_another_dataset_under_the_same_name_is_rejected_and_nothing_changes(task: Task) -> None:
    nbt.search(task, budget=3, **QUICK)
    before = api.studies()
    other = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=20)
    with pytest.raises(UsageError, match="fresh=True"):
        nbt.search(other, budget=3, **QUICK)
    assert api.studies() == before
    fresh = nbt.search(other, budget=3, fresh=True, **QUICK)
    assert fresh.record.config.name == "s-2"


def test_wrong_input_writes_nothing(task: Task, own_folder: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"budget": 0},
        {"budget": 3, "space": "non_binry"},
        {"budget": 3, "pruner": "hyperband"},
        {"budget": 3, "engine": "slurm"},
        {"budget": 3, "workers": 0},
        {"budget": 3, "storage": "not a url"},
        {"budget": 3, "tracking_uri": "carrier-pigeon://coop"},
        {"budget": 3, "study": "a/b"},
        {"budget": 3, "shots": 5},
    ]
    for options in wrong:
        with pytest.raises(UsageError):
            nbt.search(task, **{**QUICK, **options})
    assert list(own_folder.iterdir()) == []


def test_a_metric_that_needs_two_classes_is_refused_before_the_search(own_folder: Path) -> None:
    """The official validation part has images of the class cat only."""
    for part, label, number in (
        ("train", "cat", 8),
        ("train", "dog", 8),
        ("val", "cat", 4),
        ("test", "cat", 4),
        ("test", "dog", 4),
    ):
        folder = own_folder / "pets" / part / label
        folder.mkdir(parents=True)
        for i in range(number):
            pixels = np.random.default_rng([number, i, len(label)]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    options = {**QUICK, "backbone": "conv3(width=8)", "weights": "none", "image_size": 32, "budget": "3"}
    with pytest.raises(UsageError, match=r"metric auroc: all 4 validation images belong to the class cat.*two classes"):
        api.search(str(own_folder / "pets"), metric="auroc", **options)
    assert not (own_folder / ".nbt" / "studies.db").exists()


def test_three_equal_failures_end_the_search_with_one_message(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.training import run_trial as trial

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(trial, "fine_tune", broken)
    with pytest.raises(NbtError, match="no kernel image"):
        nbt.search(task, budget=8, **QUICK)
    assert api.studies()[0]["trials"]["failed"] == 3


def test_the_public_names_are_complete() -> None:
    assert set(nbt.__all__) <= set(dir(nbt))
    for name in nbt.__all__:
        assert getattr(nbt, name) is not None
    assert nbt.transfer.L2SP is not None
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        _ = nbt.serch


@pytest.mark.parametrize("way", ["reports", "reports/s", "reports/s/model"])
def test_an_unwritable_report_folder_is_rejected_first(task: Task, own_folder: Path, way: str) -> None:
    (own_folder / way).parent.mkdir(parents=True, exist_ok=True)
    (own_folder / way).write_text("mine")
    with pytest.raises(UsageError, match=f"^out .*{own_folder / way} is no folder"):
        nbt.search(task, budget=3, **QUICK)
    assert not (own_folder / ".nbt").exists()
    assert (own_folder / way).read_text() == "mine"


def test_a_search_never_deletes_other_files_in_the_folder_of_its_model(task: Task, own_folder: Path) -> None:
    (own_folder / "reports/s/model").mkdir(parents=True)
    (own_folder / "reports/s/model/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"^out .*notes\.txt"):
        nbt.search(task, budget=3, **QUICK)
    assert not (own_folder / ".nbt").exists()


class FailingObserver(StudyObserver):
    """Creates a folder at the path of the first report file, and may raise an exception in the second trial."""

    def __init__(self, ending: BaseException | None = None) -> None:
        self.ending = ending
        self.finished = 0

    def trial_finished(self, trial: TrialRecord) -> None:
        Path("reports/s/report.md/mine").mkdir(parents=True, exist_ok=True)

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        if number and self.ending is not None:
            raise self.ending

    def study_finished(self, record: Any) -> None:
        self.finished += 1


@pytest.mark.parametrize("is_fresh", [False, True])
def test_a_folder_that_cannot_hold_the_model_leaves_no_study(task: Task, own_folder: Path, is_fresh: bool) -> None:
    if is_fresh:
        nbt.search(task, budget=3, **QUICK)
    name = "s-2" if is_fresh else "s"
    (own_folder / "reports" / name / "model" / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not a model folder"):
        nbt.search(task, budget=3, fresh=is_fresh, **QUICK)
    assert [study.name for study in list_studies(resolve_storage(None))] == ["s"] * is_fresh


class InterruptingReport:
    """Stands for the writing of the report: each call is a Ctrl-C."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: Any) -> Path:
        self.calls += 1
        raise KeyboardInterrupt


def test_an_interrupt_during_the_report_still_notifies_the_observers_and_says_how_to_end(
    task: Task, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer, report = FailingObserver(), InterruptingReport()
    monkeypatch.setattr("nbt.report.study.write.write_report", report)
    with pytest.raises(KeyboardInterrupt):
        nbt.search(task, budget=3, observers=[observer], **QUICK)
    assert (observer.finished, report.calls) == (1, 1)
    assert caplog.text.count("interrupted: the MLflow runs are still being written; another Ctrl-C ends") == 1


def test_a_second_interrupt_ends_the_search_at_once(
    task: Task, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer, report = FailingObserver(KeyboardInterrupt()), InterruptingReport()
    monkeypatch.setattr("nbt.report.study.write.write_report", report)
    with pytest.raises(KeyboardInterrupt):
        nbt.search(task, budget=3, observers=[observer], **QUICK)
    assert (observer.finished, report.calls) == (0, 1), "nothing is written after the second one"
    assert caplog.text.count("interrupted: the report is still being written; another Ctrl-C ends the search") == 1


def test_an_interrupt_before_the_end_of_a_trial_writes_no_report(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(StudyObserver):
        finished = 0

        def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
            raise KeyboardInterrupt

        def study_finished(self, record: Any) -> None:
            self.finished += 1

    observer, report = Interrupting(), InterruptingReport()
    monkeypatch.setattr("nbt.report.study.write.write_report", report)
    with pytest.raises(KeyboardInterrupt):
        nbt.search(task, budget=3, observers=[observer], **QUICK)
    assert (observer.finished, report.calls) == (1, 0)


def test_observers_are_notified_of_the_end_if_the_report_fails(task: Task) -> None:
    observer = FailingObserver()
    with pytest.raises(NbtError, match=r"reports/s: cannot write the report .*use another out"):
        nbt.search(task, budget=3, observers=[observer], **QUICK)
    assert observer.finished == 1
    assert api.studies()[0]["finished"]


def test_observers_are_notified_of_an_interruption_if_the_report_fails(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    observer = FailingObserver(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        nbt.search(task, budget=3, observers=[observer], **QUICK)
    assert observer.finished == 1
    assert "cannot write the report" in caplog.text


def test_the_report_contains_the_run_options(task: Task, own_folder: Path) -> None:
    where = {"storage": "sqlite:///far.db", "tracking_uri": "sqlite:///runs.db", "out": "pages"}
    result = nbt.search(task, budget=3, **QUICK, **where)
    expected = {
        "--storage": "sqlite:///far.db",
        "--tracking-uri": "sqlite:///runs.db",
        "--experience": str(QUICK["experience"]),
        "--final-seeds": "2",
        "--out": str(own_folder / "pages"),
    }
    assert result.record.search_config().command_options("run") == expected
    words = shlex.split(search_command(own_folder / "pages/s/report.md"))
    assert {option: words[words.index(option) + 1] for option in expected} == expected
    api.report("s", storage="sqlite:///far.db", out="again")
    words = shlex.split(search_command(own_folder / "again/s/report.md"))
    assert words[words.index("--storage") + 1] == "sqlite:///far.db"
    assert words[words.index("--out") + 1] == str(own_folder / "again")


def search_command(page: Path) -> str:
    return next(line for line in page.read_text().splitlines() if line.startswith("nbt search"))


def test_a_whole_configuration_gives_the_same_study_as_options() -> None:
    digits = {"backbone": "conv3(width=8)", "weights": "none", "shots": 6, "budget": 3}
    config = nbt.SearchConfig(dataset="digits", **digits, **{**QUICK, "study": "c"})
    one = nbt.search(config).record
    other = nbt.search("digits", **digits, **QUICK).record
    assert [trial.settings for trial in one.trials] == [trial.settings for trial in other.trials]
    assert one.search_config() == other.search_config().replace(study="c")
    assert nbt.search(config, budget=4).record.budget == "4", "an option replaces that of the configuration"


def test_the_stored_options_resume_the_study(task: Task) -> None:
    first = nbt.search(task, budget=3, **QUICK).record
    stored = first.search_config()
    assert stored.image_size == task.image_size and stored.budget == "3" and stored.seed == task.seed
    again = nbt.search(stored).record
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in first.trials]


def test_an_unknown_option_is_named(task: Task) -> None:
    with pytest.raises(UsageError, match="unknown option 'budgt'; did you mean budget"):
        nbt.search(task, budgt=3)


def test_a_model_is_not_exported_to_a_folder_with_other_files(own_folder: Path) -> None:
    (own_folder / "notes.txt").write_text("mine")
    for export in (Path(), own_folder, Path("../") / own_folder.name):
        with pytest.raises(UsageError, match=r"--export .*notes\.txt"):
            api.train("no dataset, and never looked at", export=export)
    assert [path.name for path in own_folder.iterdir()] == ["notes.txt"]


def test_a_recipe_without_starting_weights_is_wrong_usage(task: Task) -> None:
    wrong = [{"init": "inject"}, {"init": "inject", "teacher": "conv3=no.pth"}, {"pretrain_zap_period": 2}]
    for changes in wrong:
        with pytest.raises(UsageError, match=r"needs a teacher|no file no\.pth|not trained by nbt"):
            api.train(task, TransferSettings(epochs=2).replace(**changes))


def test_weights_without_an_advantage_are_compared_with_training_from_scratch_first(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise in the place of pretrained weights; then the same weights as if they had an advantage."""
    task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
    generator = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(value.shape, generator=generator) * value.std() for name, value in task.w0.items()}
    torch.save(noise, own_folder / "noise.pth")
    useless = nbt.load_task("digits", backbone="conv3(width=8)", weights=own_folder / "noise.pth", shots=24)
    options = {**QUICK, "workers": 1, "progress": False}
    result = nbt.search(useless, budget=4, **{**options, "study": "noise"})
    origins = [trial.origin for trial in result.record.trials]
    assert origins == ["anchor: default recipe", "anchor: training from scratch", "sampler", "sampler"]
    assert [trial.settings.transfer_depth for trial in result.record.trials] == [1.0, 0.0, 0.0, 0.0]
    resumed = nbt.search(useless, budget=5, **{**options, "study": "noise"}).record
    assert [trial.settings.transfer_depth for trial in resumed.trials] == [1.0, 0.0, 0.0, 0.0, 0.0]
    document = result.to_json()["transfer"]
    assert document["advised"] == (result.recommended.transfer_depth > 0.0)
    assert "with random weights: no clear advantage." in document["evidence"][0]
    recommendation = api.recommend(FitProfile.from_dict(result.record.profile))
    assert (recommendation.name, recommendation.settings) == ("training from scratch", from_scratch_recipe(12))

    monkeypatch.setattr(Target, "has_no_advantage", False)
    record = nbt.search(useless, budget=3, **{**options, "study": "unclear"}).record
    assert [trial.origin for trial in record.trials][1:] == ["anchor: training from scratch", "anchor: linear probe"]

    monkeypatch.setattr(Target, "has_clear_advantage", True)
    record = nbt.search(useless, budget=3, **options).record
    assert "anchor: training from scratch" not in [trial.origin for trial in record.trials]


SHARED = REPOSITORY.parent / "shared"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared with data and weights")
@pytest.mark.parametrize("data", ["scene15", "corn4"])
def test_only_weights_without_use_are_compared_with_training_from_scratch_first(data: str, own_folder: Path) -> None:
    real = SHARED / "weights" / "mobilenet_v2_035-imagenet.pth"
    state, generator = torch.load(real, weights_only=True), torch.Generator().manual_seed(0)
    useless = {
        name: value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
        if value.ndim > 1
        else value
        for name, value in state.items()
    }
    torch.save(useless, own_folder / "shuffled.pth")
    for weights, is_early in ((real, False), (own_folder / "shuffled.pth", True)):
        record = nbt.search(
            str(SHARED / "data" / data),
            backbone="mobilenet_v2(width_mult=0.35)",
            weights=weights,
            image_size=64,
            budget=2,
            **{**QUICK, "epochs": 1, "study": weights.stem, "workers": 1, "progress": False},
        ).record
        assert (record.trials[1].origin == "anchor: training from scratch") == is_early
