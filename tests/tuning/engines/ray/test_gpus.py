"""Trials that share a GPU, on a local Ray instance that is configured with a GPU that does not exist."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nbt.training.results import TrialSpec
from nbt.tuning.engines.ray.engine import RayEngine
from nbt.tuning.engines.ray.options import RayOptions
from tests.tuning.engines.contract import EPOCHS, ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from tests.tuning.engines.local_ray import local_ray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray_instance() -> Iterator[None]:
    with local_ray(num_gpus=1):
        yield


class CountingSource(ListSource):
    """Records the number of finished trials at each request."""

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        super().__init__(specs)
        self.done_before: list[int] = []

    def next_trial(self) -> TrialSpec | None:
        self.done_before.append(len(self.done))
        return super().next_trial()


def test_the_first_trial_has_a_gpu_and_later_ones_share_by_its_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = CountingSource(make_specs(*["measured"] * 5))
    options = RayOptions(gpus_per_trial="auto", cpus_per_trial=0.1)
    with (
        caplog.at_level(logging.WARNING, logger="nbt"),
        RayEngine(FakeTask(tmp_path), workers=3, options=options, runner=RUNNER) as engine,  # type: ignore[arg-type]
    ):
        engine.run(source)
    assert len(source.done) == 5 and all(len(outcome.curve) == EPOCHS for outcome in source.done.values())
    assert source.done_before[:2] == [0, 1], "the first trial runs alone until it has finished"
    assert source.max_running == 3
    workers_per_device = {key: outcome.facts["workers_per_device"] for key, outcome in source.done.items()}
    assert workers_per_device == {key: 1 if key.startswith("0000") else 3 for key in source.done}, (
        "four fit on the GPU, three workers run"
    )
    for outcome in source.done.values():
        assert (outcome.facts["node"], outcome.facts["gpu_index"]) == (platform.node(), "0")
        assert outcome.facts["CUDA_VISIBLE_DEVICES"] == "0"
    assert not source.abandoned
    warning = f"{platform.node()} has GPU 0, but PyTorch finds no GPU there: its trials train on the CPU"
    assert [record.getMessage() for record in caplog.records] == [warning], "logged once for three workers"
