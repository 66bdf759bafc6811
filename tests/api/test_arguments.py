"""Arguments of a wrong type in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbt
from nbt.errors import UsageError
from nbt.task.task import Task


@pytest.fixture(scope="module")
def digits() -> Task:
    return nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda task: nbt.load_model(None), "model None: give the path of a model folder"),  # type: ignore[arg-type]
        (lambda task: nbt.load_model(""), "model '': give the path of a model folder"),
        (lambda task: nbt.search(None, budget=2), "None is no task"),  # type: ignore[arg-type]
        (lambda task: nbt.train(None), "None is no task"),  # type: ignore[arg-type]
        (lambda task: nbt.train(task, {"epochs": 1}), "settings {'epochs': 1}: give nbt.TransferSettings"),  # type: ignore[arg-type]
        (lambda task: nbt.train(task, progrss=False), "unknown option 'progrss'; did you mean progress?"),  # type: ignore[call-arg]
        (lambda task: nbt.train(task, image_size=32), "image_size: a loaded task has its own"),
        (lambda task: nbt.search(task, budget=2, max_budget="5"), "max_budget: only with budget auto"),
    ],
)
def test_wrong_arguments_are_named(
    call: Callable[[Task], Any], message: str, digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        call(digits)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []
