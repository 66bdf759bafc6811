"""Real tasks that train in seconds: a few digits, with an encoder without and a network with BatchNorm."""

from __future__ import annotations

import pytest

from nbt.task.load import load_task
from nbt.task.task import Task


@pytest.fixture(scope="session")
def digits() -> Task:
    """120 labelled digits, 28 px, three units with InstanceNorm, random w0."""
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


@pytest.fixture(scope="session")
def digits_batchnorm() -> Task:
    """60 labelled digits, 32 px, mobilenet_v2's 19 units at its narrowest, random w0."""
    return load_task("digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=12, image_size=32)
