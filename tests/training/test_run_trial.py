"""Outcomes of trials: curves, failures, tests, exports and facts about the device."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training import fine_tune as fine_tune_module
from nbt.training import run_trial as trial_module
from nbt.training.fine_tune import FineTuneResult
from nbt.training.metrics import COMPUTE
from nbt.training.results import EpochResult, TrialSpec
from nbt.training.run_trial import run_trial, task_for_trial
from nbt.training.source_accuracy import source_accuracy
from nbt.training.trial_state import TrialState
from nbt.training.worker.context import WorkerContext
from tests.source_images import BACKBONE, save_source_images, save_source_weights

QUICK = TransferSettings(epochs=3, head_lr=0.1, body_lr=0.05, batch_size=16)


@pytest.fixture(scope="module")
def context(digits: Task) -> WorkerContext:
    return WorkerContext(digits)


def never_stop(result: EpochResult) -> None:
    return None


def test_a_finished_trial_has_its_whole_curve_and_its_device(context: WorkerContext) -> None:
    outcome = run_trial(TrialSpec(key="a", settings=QUICK), context, never_stop)
    assert [result.epoch for result in outcome.curve] == [1, 2, 3]
    assert (outcome.error, outcome.stopped, outcome.test_accuracy) == (None, None, None)
    assert outcome.facts["device"] == "cpu"
    assert outcome.facts["setup_seconds"] > 0


def test_a_stopped_trial_keeps_its_curve_and_is_neither_tested_nor_exported(
    context: WorkerContext, tmp_path: Path
) -> None:
    spec = TrialSpec(key="a", settings=QUICK, evaluate_test=True, export=tmp_path / "model")
    outcome = run_trial(spec, context, lambda result: "not promising" if result.epoch == 2 else None)
    assert outcome.stopped == "not promising"
    assert len(outcome.curve) == 2
    assert outcome.test_accuracy is None
    assert not spec.export.exists()


@pytest.mark.parametrize(("known_epochs", "expected"), [(1, [2, 3]), (0, [1, 2, 3]), (2, [2, 3]), (None, [2, 3])])
def test_a_resumed_trial_reports_the_epochs_that_the_driver_lacks(
    context: WorkerContext, tmp_path: Path, known_epochs: int | None, expected: list[int]
) -> None:
    """The checkpoint has one epoch; a killed driver may know fewer or, from an earlier attempt, more."""
    from nbt.training.fine_tune import fine_tune

    path = tmp_path / "a.pt"
    interrupted = fine_tune(context.task, QUICK, context=context, checkpoint=path, checkpoint_seconds=0)
    next(interrupted)
    interrupted.close()
    reported: list[int] = []
    spec = TrialSpec(key="a", settings=QUICK, checkpoint=path, known_epochs=known_epochs)
    outcome = run_trial(spec, context, lambda result: reported.append(result.epoch))
    assert reported == expected
    assert [result.epoch for result in outcome.curve] == [1, 2, 3]
    assert not path.exists(), "a finished trial needs no checkpoint"


def test_a_trial_that_is_stopped_at_an_epoch_of_its_checkpoint_ends_there(
    context: WorkerContext, tmp_path: Path
) -> None:
    from nbt.training.fine_tune import fine_tune

    path = tmp_path / "a.pt"
    interrupted = fine_tune(context.task, QUICK, context=context, checkpoint=path, checkpoint_seconds=0)
    next(interrupted), next(interrupted)
    interrupted.close()
    outcome = run_trial(
        TrialSpec(key="a", settings=QUICK, checkpoint=path, known_epochs=0), context, lambda result: "not promising"
    )
    assert outcome.stopped == "not promising"
    assert [result.epoch for result in outcome.curve] == [1]


def test_test_images_are_evaluated_only_on_request(context: WorkerContext) -> None:
    outcome = run_trial(TrialSpec(key="a", settings=QUICK, train_on_all=True, evaluate_test=True), context, never_stop)
    assert outcome.test_accuracy is not None
    assert 0.3 < outcome.test_accuracy <= 1
    assert outcome.curve[-1].val_accuracy is None


@pytest.mark.parametrize("frozen_depth", [0.0, 1.0], ids=["trained", "frozen features"])
def test_validation_predictions_are_those_of_the_last_epoch_and_need_no_other_forward_pass(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, frozen_depth: float
) -> None:
    def evaluated_again(*args: object) -> None:
        raise AssertionError("the validation images were evaluated again")

    monkeypatch.setattr(trial_module, "evaluate_model", evaluated_again)
    spec = TrialSpec(key="a", settings=QUICK.replace(frozen_depth=frozen_depth), split_seed=3, keep_predictions=True)
    outcome = run_trial(spec, context, never_stop)
    assert outcome.predictions is not None
    index = task_for_trial(spec, context.task).split.val
    np.testing.assert_array_equal(outcome.predictions.index, index)
    np.testing.assert_array_equal(outcome.predictions.labels, context.task.labels[index])
    assert COMPUTE["accuracy"](outcome.predictions) == pytest.approx(outcome.curve[-1].val_accuracy)
    assert COMPUTE["log_loss"](outcome.predictions) == pytest.approx(outcome.curve[-1].val_loss, rel=1e-5)


def test_test_predictions_are_those_of_the_tested_model(context: WorkerContext) -> None:
    spec = TrialSpec(key="a", settings=QUICK, train_on_all=True, evaluate_test=True, keep_predictions=True)
    outcome = run_trial(spec, context, never_stop)
    assert outcome.predictions is not None
    np.testing.assert_array_equal(outcome.predictions.index, context.task.split.test)
    assert COMPUTE["accuracy"](outcome.predictions) == pytest.approx(outcome.test_accuracy)
    assert COMPUTE["log_loss"](outcome.predictions) == pytest.approx(outcome.test_loss, rel=1e-5)


def test_predictions_are_kept_on_request_only_and_only_of_finished_trainings(context: WorkerContext) -> None:
    diverging = QUICK.replace(head_lr=1000.0, body_lr=1000.0)
    assert run_trial(TrialSpec(key="a", settings=QUICK), context, never_stop).predictions is None
    for settings, on_epoch in ((QUICK, lambda result: "stop"), (diverging, never_stop)):
        outcome = run_trial(TrialSpec(key="a", settings=settings, keep_predictions=True), context, on_epoch)
        assert outcome.error is None
        assert outcome.predictions is None


def test_the_split_seed_changes_training_and_validation_images_only(digits: Task) -> None:
    other = task_for_trial(TrialSpec(key="a", settings=QUICK, split_seed=5), digits)
    assert set(other.split.val) != set(digits.split.val)
    assert set(other.split.test) == set(digits.split.test)
    everything = task_for_trial(TrialSpec(key="a", settings=QUICK, split_seed=5, train_on_all=True), digits)
    assert set(everything.split.train) == set(digits.split.train) | set(digits.split.val)


def test_a_trial_may_use_some_of_the_training_images(digits: Task, context: WorkerContext) -> None:
    spec = TrialSpec(key="a", settings=QUICK, max_train_images=32)
    assert len(task_for_trial(spec, digits).split.train) == 32
    assert run_trial(spec, context, never_stop).error is None


def test_an_exception_is_an_outcome_with_one_line_and_the_traceback(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("shape\nmismatch")

    monkeypatch.setattr(trial_module, "fine_tune", broken)
    outcome = run_trial(TrialSpec(key="a", settings=QUICK), context, never_stop)
    assert outcome.error == "RuntimeError: shape mismatch"
    assert "Traceback" in (outcome.traceback or "")
    assert not outcome.out_of_memory


def test_running_out_of_memory_is_recognised_and_frees_the_caches(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = WorkerContext(digits)
    run_trial(TrialSpec(key="a", settings=QUICK.replace(frozen_depth=1.0)), context, never_stop)
    assert context._cache.memory_used > 0

    def broken(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial_module, "fine_tune", broken)
    outcome = run_trial(TrialSpec(key="a", settings=QUICK), context, never_stop)
    assert outcome.out_of_memory
    assert context._cache.memory_used == 0


def test_a_failed_trial_is_released_before_its_memory_is_freed(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[weakref.ref[object]] = []

    class OutOfMemoryState(TrialState):
        @property
        def finished(self) -> bool:
            trials.append(weakref.ref(self))
            raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(fine_tune_module, "TrialState", OutOfMemoryState)
    context = WorkerContext(digits)
    alive: list[bool] = []
    monkeypatch.setattr(context, "clear", lambda: alive.extend(trial() is not None for trial in trials))
    outcome = run_trial(TrialSpec(key="a", settings=QUICK), context, never_stop)
    assert outcome.out_of_memory and "in finished" in (outcome.traceback or "")
    assert alive == [False]


@pytest.mark.parametrize(("number", "precision"), [(0, "float32"), (1, "bf16")])
def test_facts_of_a_gpu_include_its_name_and_the_peak_memory_of_the_trial(
    number: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses a simulated GPU with and without bf16; the peak of a trial starts at the memory that the process holds."""
    held = {"now": 3, "peak": 90}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.update(peak=held["now"]))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: held["peak"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 100))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7 + device.index, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"fast {device.index}")

    def train(takes: int) -> FineTuneResult:
        held["peak"] = max(held["peak"], held["now"] + takes)
        return FineTuneResult(None, QUICK, (), 0.5)  # type: ignore[arg-type]

    def fake(task: object, settings: TransferSettings, seed: int, **options: object) -> Generator[EpochResult]:
        if seed == 0:
            raise ValueError("no")
        if seed == 1:
            train(97)
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield EpochResult(1, 1.0, 1.0, 0.5, 1.0)
        return train(seed)

    monkeypatch.setattr(trial_module, "fine_tune", fake)
    task = SimpleNamespace(scenario=None)
    context: Any = SimpleNamespace(
        device=torch.device("cuda", number), task=task, cache_memory=2, clear=lambda: held.update(now=1)
    )
    facts = [
        run_trial(TrialSpec(key="a", settings=QUICK, seed=seed), context, never_stop).facts for seed in (20, 10, 0, 1)
    ]
    where = {"device": f"cuda:{number}", "precision": precision, "gpu": f"fast {number}"}
    memory = {"cache_memory_bytes": 2, "device_memory_bytes": 100}
    assert facts == [
        {**where, **memory, "peak_memory_bytes": 23, "setup_seconds": 0.5, "optimizer": {}},
        {**where, **memory, "peak_memory_bytes": 13, "setup_seconds": 0.5, "optimizer": {}},
        where,
        {**where, **memory, "peak_memory_bytes": 100},
    ]


def test_an_interrupt_is_raised(context: WorkerContext) -> None:
    def interrupt(result: EpochResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(TrialSpec(key="a", settings=QUICK), context, interrupt)


def test_no_temporary_files_are_left(context: WorkerContext, tmp_path: Path) -> None:
    run_trial(TrialSpec(key="a", settings=QUICK, export=tmp_path / "model"), context, never_stop)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]


def test_a_diverged_model_is_not_exported_and_has_the_worst_test_accuracy(digits: Task, tmp_path: Path) -> None:
    spec = TrialSpec(
        key="a", settings=QUICK.replace(head_lr=1000.0, body_lr=1000.0), evaluate_test=True, export=tmp_path / "m"
    )
    outcome = run_trial(spec, WorkerContext(digits), never_stop)
    assert outcome.error is None and outcome.diverged
    assert (outcome.test_accuracy, outcome.test_loss) == (0.0, None)
    assert not (tmp_path / "m").exists()


@pytest.fixture(scope="module")
def source_context(tmp_path_factory: pytest.TempPathFactory) -> WorkerContext:
    folder = tmp_path_factory.mktemp("source")
    weights, images = save_source_weights(folder / "w.safetensors"), save_source_images(folder / "images")
    return WorkerContext(load_task("digits", backbone=BACKBONE, weights=weights, shots=24, source_data=images))


def test_source_accuracy_is_measured_on_request_at_the_end(
    source_context: WorkerContext, context: WorkerContext
) -> None:
    frozen = TrialSpec(key="a", settings=QUICK.replace(frozen_depth=1.0), measure_source=True)
    reference = source_accuracy(source_context.task.build_model(), source_context.task)
    assert run_trial(frozen, source_context, never_stop).source_accuracy == reference
    assert run_trial(frozen, context, never_stop).source_accuracy is None, "the task has no images of its source"
    assert run_trial(frozen, source_context, lambda _: "not promising").source_accuracy is None
    assert (
        run_trial(dataclasses.replace(frozen, measure_source=False), source_context, never_stop).source_accuracy is None
    )


def test_a_diverged_trial_has_source_accuracy_0(source_context: WorkerContext, context: WorkerContext) -> None:
    spec = TrialSpec(key="a", settings=QUICK.replace(head_lr=1000.0, body_lr=1000.0), measure_source=True)
    outcome = run_trial(spec, source_context, never_stop)
    assert outcome.diverged and outcome.source_accuracy == 0.0
    assert run_trial(spec, context, never_stop).source_accuracy is None
