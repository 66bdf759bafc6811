"""A trained model of digits in a model folder, shared by the tests of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.export.exported_model import export_model
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext

SETTINGS = TransferSettings(epochs=8, head_lr=0.1, body_lr=0.05, batch_size=16)


@dataclass(frozen=True)
class Trained:
    """A trained model: its task, the worker that trained it, and its folder, which tests must not change."""

    task: Task
    context: WorkerContext
    folder: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    task = load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
    context = WorkerContext(task)
    for _ in fine_tune(task, SETTINGS, context=context):
        pass
    folder = tmp_path_factory.mktemp("inference") / "model"
    export_model(context.model, task, SETTINGS, folder)
    return Trained(task, context, folder)
