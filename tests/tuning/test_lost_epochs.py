"""Epochs that a killed process trained and did not store: its checkpoint has them, and they count once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbt.task.load import load_task
from nbt.training.fine_tune import fine_tune
from nbt.training.results import EpochResult, TrialSpec
from nbt.training.run_trial import run_trial
from nbt.training.worker.context import WorkerContext
from nbt.tuning.controller import SearchController
from tests.tuning.fakes import EPOCHS, kill, make_controller, open_fake_study, states, writer


@pytest.fixture(scope="module")
def context() -> WorkerContext:
    return WorkerContext(load_task("digits", backbone="conv3(width=4)", weights="none", shots=4))


def start(controller: SearchController) -> TrialSpec:
    spec = controller.next_trial()
    assert spec is not None
    return spec


def finish(controller: SearchController, spec: TrialSpec, context: WorkerContext) -> list[int]:
    """Runs a trial to its end; returns the epochs that it has reported."""
    reported: list[int] = []

    def on_epoch(result: EpochResult) -> str | None:
        reported.append(result.epoch)
        return controller.on_epoch(spec, result)

    controller.on_done(spec, run_trial(spec, context, on_epoch))
    return reported


@pytest.mark.parametrize("stored", [0, 1, 3])
def test_they_are_reported_by_the_resumed_trial(tmp_path: Path, context: WorkerContext, stored: int) -> None:
    """The killed process trained three epochs, of which the database has `stored`; with 0 it lacks the trial, too."""
    with open_fake_study(tmp_path / "undisturbed", "1") as store:
        controller = make_controller(store, "1", checkpoints=tmp_path / "other")
        finish(controller, start(controller), context)
        undisturbed = store.record()

    store = open_fake_study(tmp_path, "1", flush_seconds=1000.0)
    controller = make_controller(store, "1", checkpoints=tmp_path)
    spec = start(controller)
    training = fine_tune(
        context.task, spec.settings, spec.seed, context=context, checkpoint=spec.checkpoint, checkpoint_seconds=0
    )
    for number in range(3):
        result = next(training)
        if number < stored:
            controller.on_epoch(spec, result)
            writer(store).flush()
    training.close()
    kill(store)

    with open_fake_study(tmp_path, "1") as store:
        controller = make_controller(store, "1", checkpoints=tmp_path)
        spec = start(controller)
        assert spec.known_epochs == stored
        assert finish(controller, spec, context) == list(range(stored + 1, EPOCHS + 1))
        controller.close()
        record = store.record()
    assert record.epochs_spent == undisturbed.epochs_spent == EPOCHS
    assert states(record.trials)[-1] == "complete"
    values = [[result.val_loss for result in study.trials[-1].curve] for study in (record, undisturbed)]
    assert values[0] == values[1]
