"""Tasks that are profiled in a second: a few digits, with and without BatchNorm, tokens, pretrained or not."""

from __future__ import annotations

import dataclasses

import pytest

from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.digits_source import pretrained_source


@pytest.fixture(scope="session")
def encoder() -> Task:
    """120 digits, conv3 with 8 channels at random weights."""
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=30)


@pytest.fixture(scope="session")
def pretrained() -> Task:
    """The same pretrained on other digits, with a source head and source class means."""
    return load_task("digits", backbone="conv3(width=8)", shots=30, pretrained=pretrained_source)


@pytest.fixture(scope="session")
def normed() -> Task:
    """120 digits at 32 px, mobilenet_v2's 19 units with BatchNorm, taken for pretrained."""
    task = load_task("digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=30, image_size=32)
    return dataclasses.replace(task, weights="some.pth")
