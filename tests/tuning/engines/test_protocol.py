"""Locations of workers, which have the same form in every engine."""

from __future__ import annotations

import pickle
import platform

import pytest

from nbt.training.results import TrialOutcome
from nbt.tuning.engines.protocol import WorkerLocation, WorkerMessage, local_worker_location


@pytest.mark.parametrize(
    ("device", "visible", "gpu"),
    [
        ("cpu", "2,3", None),
        ("cuda:1", None, "1"),
        ("cuda", None, "0"),
        ("cuda:1", "2, 3", "3"),
        ("cuda:0", "GPU-8a6b", "GPU-8a6b"),
        ("cuda:1", "", "1"),
        ("cuda:2", "5", "2"),
    ],
)
def test_the_gpu_index_is_that_of_the_machine(
    device: str, visible: str | None, gpu: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    expected = {"node": platform.node(), "device": device} | ({} if gpu is None else {"gpu_index": gpu})
    assert local_worker_location(device).facts() == expected


def test_unknown_facts_are_omitted() -> None:
    assert WorkerLocation().facts() == {}
    assert local_worker_location("").facts() == {"node": platform.node()}
    two_gpus = WorkerLocation("id", "alpha", "cuda:0", ("2", "3"))
    assert two_gpus.facts() == {"node": "alpha", "device": "cuda:0", "gpu_index": "2,3"}


def test_a_message_survives_pickling() -> None:
    message = WorkerMessage(outcome=TrialOutcome(error="no"), setup_failed=True, location=WorkerLocation("n", "alpha"))
    message.logs = ((30, "odd"),)
    copy = pickle.loads(pickle.dumps(message))
    assert vars(copy) == vars(message)
