"""Streams of tasks as trials of a search."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.training.continual.run import run_continual
from nbt.training.continual.stream_trial import StreamTrialResult, stream_trial
from nbt.training.results import EpochResult, TrialSpec
from nbt.training.run_trial import run_trial
from nbt.training.worker.context import WorkerContext

SETTINGS = repair(TransferSettings(epochs=4, batch_size=8, augmentation="none"))


@pytest.fixture(scope="module")
def stream(digits: Task) -> Task:
    return dataclasses.replace(digits, scenario="task", tasks=2)


def run_to_end(trial: object) -> tuple[list[EpochResult], StreamTrialResult]:
    results = []
    while True:
        try:
            results.append(next(trial))
        except StopIteration as end:
            return results, end.value


def test_the_curve_has_the_epochs_of_all_tasks_and_the_last_one_the_accuracy(stream: Task) -> None:
    results, trial = run_to_end(stream_trial(stream, SETTINGS, context=WorkerContext(stream)))
    assert tuple(results) == trial.curve
    assert [result.epoch for result in results] == [1, 2, 3, 4]
    assert [result.val_accuracy for result in results] == [None, None, None, trial.result.average_accuracy]
    assert [score.task for score in trial.result.scores] == [1, 2]
    assert sum(result.seconds for result in results) == pytest.approx(trial.result.seconds)


def test_each_task_has_an_equal_share_of_the_epochs(stream: Task) -> None:
    _, trial = run_to_end(stream_trial(stream, SETTINGS, seed=3, context=WorkerContext(stream)))
    settings = ContinualSettings(scenario="task", tasks=2, recipe=SETTINGS.replace(epochs=2))
    expected = run_to_end(run_continual(stream, settings, 3, order_seed=stream.seed, evaluate_on="val"))[1]
    assert trial.result.matrix.tolist() == expected.matrix.tolist()


def test_trials_of_a_search_share_the_tasks(stream: Task) -> None:
    orders = {
        run_to_end(stream_trial(stream, SETTINGS, seed=seed, context=WorkerContext(stream)))[1].result.class_order
        for seed in range(3)
    }
    assert len(orders) == 1
    other = stream.with_split_seed(4)
    assert run_to_end(stream_trial(other, SETTINGS, context=WorkerContext(other)))[1].result.class_order not in orders


def test_a_stopped_stream_ends_after_the_current_task(stream: Task) -> None:
    outcome = run_trial(TrialSpec(key="trial-0000", settings=SETTINGS), WorkerContext(stream), lambda result: "enough")
    assert outcome.stopped == "enough"
    assert [result.epoch for result in outcome.curve] == [1, 2]


def test_a_resumed_stream_has_the_complete_curve(stream: Task, tmp_path: Path) -> None:
    file = tmp_path / "trial.pt"
    whole = run_to_end(stream_trial(stream, SETTINGS, context=WorkerContext(stream)))[1]
    trial = stream_trial(stream, SETTINGS, context=WorkerContext(stream), checkpoint=file)
    for _ in range(3):
        next(trial)
    trial.close()
    new_epochs, resumed = run_to_end(stream_trial(stream, SETTINGS, context=WorkerContext(stream), checkpoint=file))
    assert len(new_epochs) < 4
    for _ in range(2):
        next(trial := stream_trial(stream, SETTINGS, context=WorkerContext(stream), checkpoint=file))
        trial.close()
    lacking = stream_trial(stream, SETTINGS, context=WorkerContext(stream), checkpoint=file, known_epochs=0)
    assert [result.epoch for result in run_to_end(lacking)[0]] == [1, 2, 3, 4]
    assert [r.train_loss for r in resumed.curve] == [r.train_loss for r in whole.curve]
    assert resumed.result.matrix.tolist() == whole.result.matrix.tolist()


def test_a_trial_is_evaluated_on_validation_or_test_images(stream: Task) -> None:
    context = WorkerContext(stream)
    validated = run_trial(TrialSpec(key="trial-0000", settings=SETTINGS), context, lambda result: None)
    assert validated.error is None
    assert validated.test_accuracy is None
    assert validated.curve[-1].epoch == 4 and (validated.curve[-1].val_accuracy or 0.0) > 0.0
    tested = run_trial(TrialSpec(key="retrain", settings=SETTINGS, evaluate_test=True), context, lambda result: None)
    assert 0.0 < tested.test_accuracy <= 1.0
