"""A worker: the device of real trials, results that do not depend on the worker, and its end."""

from __future__ import annotations

import logging
import os
import threading
from multiprocessing.connection import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.training.worker import context as context_module
from nbt.tuning.engines.local import LocalEngine
from nbt.tuning.engines.protocol import local_worker_location
from nbt.tuning.engines.worker import TrialRunner, WorkerSetup, serve
from tests.tuning.engines.contract import ListSource
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from tests.tuning.engines.processes import TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("gpus", "slot", "workers", "requested", "device", "workers_per_device"),
    [
        (0, 3, 4, None, "cpu", 4),
        (1, 3, 4, None, "cuda:0", 4),
        (2, 3, 4, None, "cuda:1", 2),
        (2, 2, 3, None, "cuda:0", 2),
        (2, 1, 2, "cpu", "cpu", 2),
        (2, 1, 2, "cuda:0", "cuda:0", 2),
        (8, 0, 1, None, "cuda:0", 1),
    ],
)
def test_workers_share_devices_and_memory(
    gpus: int,
    slot: int,
    workers: int,
    requested: str | None,
    device: str,
    workers_per_device: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments: dict[str, Any] = {}

    class FakeContext:
        def __init__(
            self,
            task: object,
            *,
            device: str | None,
            cache_bytes: int | None,
            workers_per_device: int,
            shared_folder: object,
        ) -> None:
            arguments.update(device=device or "cpu", cache_bytes=cache_bytes, workers_per_device=workers_per_device)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(context_module, "WorkerContext", FakeContext)
    task: Any = SimpleNamespace(candidates={}, candidate=lambda name: name)
    TrialRunner(task, slot=slot, workers=workers, device=requested)
    assert arguments == {"device": device, "cache_bytes": None, "workers_per_device": workers_per_device}
    TrialRunner(task, device="cpu", cache_bytes=7)
    assert arguments["cache_bytes"] == 7
    task.candidates = {"other": None}
    TrialRunner(task, workers=2, device="cpu", cache_bytes=8)
    assert (arguments["cache_bytes"], arguments["workers_per_device"]) == (4, 4), "backbones share the memory"


@pytest.mark.slow
def test_workers_give_the_same_results_as_this_process() -> None:
    task = load_task("digits", backbone="conv3", weights="none")
    settings = TransferSettings(epochs=2, batch_size=128)
    specs = [
        TrialSpec(key=f"trial-{i}", settings=settings.replace(frozen_depth=0.5 * (i % 2)), seed=i, split_seed=i // 2)
        for i in range(4)
    ]

    def results(workers: int) -> dict[str, TrialOutcome]:
        source = ListSource(specs)
        with LocalEngine(task, workers=workers, device="cpu") as engine:
            engine.run(source)
        return source.done

    one_worker, two_workers = results(1), results(2)
    assert one_worker.keys() == two_workers.keys() == {spec.key for spec in specs}
    for key, outcome in one_worker.items():
        assert outcome.error is None
        assert [(r.train_loss, r.val_loss) for r in outcome.curve] == [
            (r.train_loss, r.val_loss) for r in two_workers[key].curve
        ]
    assert {outcome.facts["worker"] for outcome in two_workers.values()} == {0, 1}


def test_an_idle_worker_ends_when_its_pipe_closes(tmp_path: Path) -> None:
    driver_end, worker_end = Pipe()
    log = logging.getLogger("nbt")
    handlers, level = log.handlers, log.level
    driver_end.send(WorkerSetup(FakeTask(tmp_path), runner=RUNNER))  # type: ignore[arg-type]
    try:
        thread = threading.Thread(target=serve, args=(worker_end,))
        thread.start()
        assert driver_end.recv().location == local_worker_location("cpu")
        driver_end.close()
        thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive()
        assert (tmp_path / f"closed-{os.getpid()}").exists()
    finally:
        log.handlers, log.propagate = handlers, True
        log.setLevel(level)
