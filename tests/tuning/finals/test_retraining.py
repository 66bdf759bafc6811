from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nbt.errors import NbtError
from nbt.settings import TransferSettings
from nbt.training.export.model_folder import CARD_FILE, was_trained_with
from nbt.training.metrics import accuracy
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.finals.finals import Finals, recommended_final
from nbt.tuning.finals.retraining import Retraining
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.studies import list_studies, read_study, resolve_storage
from tests.tuning.fakes import (
    DATASET,
    EPOCHS,
    DriverKilled,
    FakeEngine,
    copy_searched_study,
    final_accuracy,
    kill,
    open_fake_study,
    run_search,
)


def search_and_finals(folder: Path, budget: str = "6") -> StudyRecord:
    copy_searched_study(folder, budget)
    with open_fake_study(folder, budget) as store:
        FakeEngine().run(Finals(store, seeds=3))
        return store.record()


def simulate_best_default(spec: TrialSpec) -> list[EpochResult]:
    level = 0.9 if "default" in spec.key else 0.2
    return [EpochResult(e, 1.0, 1.0, level, 1.0) for e in range(1, EPOCHS + 1)]


def retrain(folder: Path, engine: FakeEngine, budget: str = "6") -> StudyRecord:
    with open_fake_study(folder, budget) as store:
        source = Retraining(store, export=folder / "model", checkpoints=folder / "checkpoints")
        engine.run(source)
        assert source.next_trial() is None
        return store.record()


def test_both_recipes_are_trained_on_all_images_and_tested_once(tmp_path: Path) -> None:
    before = search_and_finals(tmp_path)
    engine = FakeEngine()
    record = retrain(tmp_path, engine)
    recommended, baseline = engine.specs
    assert (recommended.key, baseline.key) == ("retrain-recommended", "retrain-baseline")
    assert recommended.settings == recommended_final(before).settings
    assert baseline.settings == default_recipe(EPOCHS)
    assert all(spec.train_on_all and spec.evaluate_test and spec.split_seed is None for spec in engine.specs)
    assert (recommended.export, baseline.export) == (tmp_path / "model", None)
    assert [test.name for test in record.test] == ["recommended", "baseline"]
    expected = wilson_interval(final_accuracy(recommended.settings), DATASET["test_images"])
    assert (record.test[0].accuracy, record.test[0].n, record.test[0].loss) == (expected, DATASET["test_images"], 0.5)
    assert record.test_evaluations == 1
    assert read_study(resolve_storage(None, tmp_path), "fake") == record
    assert list_studies(resolve_storage(None, tmp_path))[0].finished


def test_one_run_serves_as_both_if_the_default_recipe_is_recommended(tmp_path: Path) -> None:
    copy_searched_study(tmp_path, "6")
    with open_fake_study(tmp_path, "6") as store:
        FakeEngine(simulate=simulate_best_default).run(Finals(store, seeds=3))
        assert store.record().recommended == DEFAULT_RECIPE
    engine = FakeEngine()
    record = retrain(tmp_path, engine)
    assert [spec.key for spec in engine.specs] == ["retrain-recommended"]
    assert record.test[0].accuracy == record.test[1].accuracy
    assert [test.name for test in record.test] == ["recommended", "baseline"]
    assert record.test_evaluations == 1


def test_a_finished_study_is_not_tested_again(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    first = retrain(tmp_path, FakeEngine())
    engine = FakeEngine()
    assert retrain(tmp_path, engine) == first
    assert engine.specs == []


def test_a_missing_model_is_trained_again_without_a_test_evaluation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search_and_finals(tmp_path)
    first = retrain(tmp_path, FakeEngine())
    assert caplog.messages == []
    shutil.rmtree(tmp_path / "model")
    engine = FakeEngine()
    assert retrain(tmp_path, engine) == first
    assert caplog.messages == [f"the model in {tmp_path / 'model'} is missing: it is trained again"]
    assert [(spec.key, spec.evaluate_test) for spec in engine.specs] == [("retrain-recommended", False)]
    assert (tmp_path / "model").is_dir()


def test_a_damaged_model_is_trained_again_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search_and_finals(tmp_path)
    first = retrain(tmp_path, FakeEngine())
    (tmp_path / "model" / CARD_FILE).write_text("{")
    engine = FakeEngine()
    assert retrain(tmp_path, engine) == first
    assert len(engine.specs) == 1
    assert caplog.messages == [f"the model in {tmp_path / 'model'} is damaged: it is trained again"]


def test_a_model_of_other_settings_is_trained_again_without_a_test_evaluation(tmp_path: Path) -> None:
    record = search_and_finals(tmp_path)
    first = retrain(tmp_path, FakeEngine())
    (tmp_path / "model" / CARD_FILE).write_text(json.dumps({"settings": TransferSettings(epochs=99).to_dict()}))
    engine = FakeEngine()
    assert retrain(tmp_path, engine) == first
    assert [(spec.key, spec.evaluate_test) for spec in engine.specs] == [("retrain-recommended", False)]
    assert was_trained_with(tmp_path / "model", recommended_final(record).settings)


def test_a_kill_in_the_second_run_does_not_repeat_the_first(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    store = open_fake_study(tmp_path, "6")
    with pytest.raises(DriverKilled):
        FakeEngine(kill_after=EPOCHS + 2).run(
            Retraining(store, export=tmp_path / "model", checkpoints=tmp_path / "checkpoints")
        )
    kill(store)
    assert read_study(resolve_storage(None, tmp_path), "fake").test_evaluations == 0
    assert not list_studies(resolve_storage(None, tmp_path))[0].finished
    engine = FakeEngine()
    record = retrain(tmp_path, engine)
    assert [spec.key for spec in engine.specs] == ["retrain-baseline"]
    assert engine.epochs == EPOCHS - 2
    assert record.test_evaluations == 1


def test_another_recommendation_is_tested_again(tmp_path: Path) -> None:
    before = search_and_finals(tmp_path)
    retrain(tmp_path, FakeEngine())
    run_search(tmp_path, "25")
    with open_fake_study(tmp_path, "25") as store:
        FakeEngine().run(Finals(store, seeds=3))
        after = store.record()
    assert recommended_final(after).settings != recommended_final(before).settings
    assert (after.test, after.test_evaluations) == ((), 1), "the results belong to the earlier recommendation"
    assert not list_studies(resolve_storage(None, tmp_path))[0].finished
    record = retrain(tmp_path, FakeEngine(), "25")
    assert record.test_evaluations == 2
    assert record.test[0].accuracy.mean == final_accuracy(recommended_final(after).settings)
    assert was_trained_with(tmp_path / "model", recommended_final(after).settings)
    assert list_studies(resolve_storage(None, tmp_path))[0].finished


def test_predictions_of_finals_and_tests_are_stored_and_kept_by_a_resumed_search(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    for engine in (FakeEngine(), FakeEngine()):  # the second one resumes the finished study
        retrain(tmp_path, engine)
        record = read_study(resolve_storage(None, tmp_path), "fake")
        for final in record.finals:
            for run in final.runs:
                validated = record.final_predictions(final, run)
                assert accuracy(validated) == pytest.approx(run.val_accuracy, abs=0.01)
        for test in record.test:
            assert accuracy(record.test_predictions(test.name)) == pytest.approx(test.accuracy.mean, abs=0.01)
    assert engine.specs == []


def test_runs_are_repeated_after_ctrl_c(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    with open_fake_study(tmp_path, "6") as store:
        source = Retraining(store)
        with pytest.raises(KeyboardInterrupt):
            FakeEngine(workers=2, interrupt_after=3).run(source)
        engine = FakeEngine()
        engine.run(source)
        assert sorted(spec.key for spec in engine.specs) == ["retrain-baseline", "retrain-recommended"]
        assert source.next_trial() is None


def test_a_failed_training_raises_and_can_be_repeated(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    failing = FakeEngine(outcome=lambda spec, curve: TrialOutcome(error="OSError: disk full"))
    with pytest.raises(NbtError, match=r"recommended settings on train \+ validation failed: OSError: disk full"):
        retrain(tmp_path, failing)
    assert retrain(tmp_path, FakeEngine()).test_evaluations == 1


def test_a_training_that_was_not_tested_is_an_error(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    untested = FakeEngine(outcome=lambda spec, curve: TrialOutcome(curve=curve))
    with pytest.raises(NbtError, match="trained but not tested"):
        retrain(tmp_path, untested)


def test_without_finals_there_is_nothing_to_train(tmp_path: Path) -> None:
    copy_searched_study(tmp_path, "2")
    with open_fake_study(tmp_path, "2") as store, pytest.raises(NbtError, match="no recommendation yet"):
        Retraining(store)


def test_a_diverged_recommendation_is_an_error_and_a_diverged_baseline_is_a_result(tmp_path: Path) -> None:
    search_and_finals(tmp_path)
    curve = (EpochResult(1, float("inf"), None, 0.0, 1.0, diverged=True),)
    diverged = TrialOutcome(curve=curve, test_accuracy=0.0)
    with open_fake_study(tmp_path, "6") as store:
        source = Retraining(store, export=tmp_path / "model")
        recommended, baseline = source.next_trial(), source.next_trial()
        assert recommended is not None and baseline is not None
        source.on_done(baseline, diverged)
        with pytest.raises(NbtError, match="recommended settings on train \\+ validation diverged in epoch 1"):
            source.on_done(recommended, diverged)
