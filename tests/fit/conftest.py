"""Tasks of a few digits, with and without BatchNorm or pretraining, that are profiled within a second."""

from __future__ import annotations

import dataclasses

import pytest

from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.digits_source import pretrained_source


@pytest.fixture(scope="session")
def encoder() -> Task:
    """Returns a task of 120 digits and conv3 with 8 channels and random weights."""
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=30)


@pytest.fixture(scope="session")
def pretrained() -> Task:
    """Returns the same task with weights pretrained on other digits, a source head and source class means."""
    return load_task("digits", backbone="conv3(width=8)", shots=30, pretrained=pretrained_source)


@pytest.fixture(scope="session")
def normed() -> Task:
    """Returns a task of 120 digits at 32 px and mobilenet_v2 (19 units with BatchNorm), labelled as pretrained."""
    task = load_task("digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=30, image_size=32)
    return dataclasses.replace(task, weights="some.pth")
