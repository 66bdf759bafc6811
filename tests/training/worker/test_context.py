"""The memory of a worker's caches, and features that workers share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.worker import context as context_module
from nbt.training.worker.context import WorkerContext
from tests.training.runs import losses, run


def test_the_feature_caches_of_all_workers_share_a_quarter_of_the_memory(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "available_memory", lambda: 1200)
    assert [
        WorkerContext(digits, device="cpu", workers_per_device=workers)._cache.memory_bytes for workers in (1, 3)
    ] == [300, 100]
    assert WorkerContext(digits, device="cpu", workers_per_device=3, cache_bytes=7)._cache.memory_bytes == 7


def test_a_trial_on_shared_features_equals_one_without(
    digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TransferSettings(epochs=2, frozen_depth=0.4)
    expected = run(digits, settings, context=WorkerContext(digits, device="cpu"))
    first = WorkerContext(digits, device="cpu", shared_folder=tmp_path)
    second = WorkerContext(digits, device="cpu", shared_folder=tmp_path)
    assert losses(run(digits, settings, context=first)) == losses(expected)
    monkeypatch.setattr(second, "forward_frozen", None)  # all features come from the first worker
    assert losses(run(digits, settings, context=second)) == losses(expected)


def test_shared_features_are_those_of_equal_weights_and_images(
    digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that an earlier search left in the folder are used only where all that they depend on is equal."""
    settings = TransferSettings(epochs=1, frozen_depth=1.0)
    changed = {name: tensor + 0.1 for name, tensor in digits.w0.items()}
    other_weights = dataclasses.replace(digits, w0=changed)
    mirrored = dataclasses.replace(digits, mirror=not digits.mirror)
    expected = [losses(run(task, settings)) for task in (digits, other_weights, mirrored)]
    for _ in range(2):
        shared = [
            losses(run(task, settings, context=WorkerContext(task, device="cpu", shared_folder=tmp_path)))
            for task in (digits, other_weights, mirrored)
        ]
        assert shared == expected
    assert expected[0] != expected[1] != expected[2]
