"""The runner of real trials: where it runs, and that it matters to no result who runs a trial."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.training.worker import context as workbench
from nbt.tuning.engines.local import LocalEngine
from nbt.tuning.engines.worker import TrialRunner
from tests.tuning.engines.contract import ListSource


@pytest.mark.parametrize(
    ("gpus", "slot", "workers", "asked", "device", "share"),
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
    gpus: int, slot: int, workers: int, asked: str | None, device: str, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    class FakeBench:
        def __init__(
            self, task: object, *, device: str | None, cache_bytes: int | None, workers_per_device: int
        ) -> None:
            made.update(device=device or "cpu", cache_bytes=cache_bytes, workers_per_device=workers_per_device)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(workbench, "WorkerContext", FakeBench)
    TrialRunner(None, slot=slot, workers=workers, device=asked)  # type: ignore[arg-type]
    assert made == {"device": device, "cache_bytes": None, "workers_per_device": share}
    TrialRunner(None, device="cpu", cache_bytes=7)  # type: ignore[arg-type]
    assert made["cache_bytes"] == 7


@pytest.mark.slow
def test_workers_give_the_results_of_this_process() -> None:
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

    here, there = results(1), results(2)
    assert here.keys() == there.keys() == {spec.key for spec in specs}
    for key, outcome in here.items():
        assert outcome.error is None
        assert [(r.train_loss, r.val_loss) for r in outcome.curve] == [
            (r.train_loss, r.val_loss) for r in there[key].curve
        ]
    assert {outcome.facts["worker"] for outcome in there.values()} == {0, 1}
