"""Small tasks of digits that train in seconds: an encoder without BatchNorm and a network with BatchNorm."""

from __future__ import annotations

import pytest

from nbt.task.load import load_task
from nbt.task.task import Task


@pytest.fixture(scope="session")
def digits() -> Task:
    """120 labelled digits of 28 px, a backbone of three units with InstanceNorm, random w0."""
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


@pytest.fixture(scope="session")
def digits_batchnorm() -> Task:
    """60 labelled digits of 32 px, the 19 units of a narrow mobilenet_v2, random w0."""
    return load_task("digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=12, image_size=32)
