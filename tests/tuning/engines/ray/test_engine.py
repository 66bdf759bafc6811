"""The Ray engine on a local Ray instance: the contract, and failures of workers."""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbt.tuning.engines.base import Engine
from nbt.tuning.engines.ray.engine import RayEngine
from nbt.tuning.engines.ray.options import RayOptions
from tests.tuning.engines.contract import EPOCHS, EngineContract, ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from tests.tuning.engines.local_ray import local_ray
from tests.tuning.engines.processes import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray_instance() -> Iterator[None]:
    """One Ray instance for all engines of this module, because starting one takes seconds."""
    with local_ray():
        yield


class SharedEngine:
    """An engine shared by several tests, because its workers take seconds to start; replaced where a test needs it."""

    def __init__(self, folder: Path, make: Callable[[FakeTask], RayEngine]) -> None:
        self.task, self._make = FakeTask(folder), make
        self.engine: RayEngine | None = None

    def get(self, *, new: bool) -> RayEngine:
        engine = self.engine
        if (
            engine is not None
            and not new
            and not engine._closed
            and engine._supervisor.max_concurrent == engine._workers
        ):
            return engine
        self.close()
        self.engine = self._make(self.task)
        return self.engine

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()


class RayContract(EngineContract):
    NEEDS_A_NEW_ENGINE = ("test_workers_keep_their_runner_between_trials_and_runs",)

    def make(self, task: FakeTask) -> RayEngine:
        return RayEngine(task, workers=self.workers, options=RayOptions(cpus_per_trial=1), runner=RUNNER)  # type: ignore[arg-type]

    @pytest.fixture(scope="class")
    @classmethod
    def shared_engine(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[SharedEngine]:
        shared_engine = SharedEngine(tmp_path_factory.mktemp("task"), lambda task: cls().make(task))
        yield shared_engine
        shared_engine.close()

    @pytest.fixture
    def task(self, shared_engine: SharedEngine) -> FakeTask:
        return shared_engine.task

    @pytest.fixture
    def engine(self, shared_engine: SharedEngine, request: pytest.FixtureRequest) -> RayEngine:
        return shared_engine.get(new=request.node.originalname in self.NEEDS_A_NEW_ENGINE)


class TestOneWorker(RayContract):
    workers = 1


class TestTwoWorkers(RayContract):
    workers = 2

    def test_a_trial_whose_worker_dies_is_retried(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        source = ListSource(make_specs("train", "die-once", "train"))
        engine.run(source)
        assert all(outcome.error is None for outcome in source.done.values())
        assert len(source.done["0001 die-once"].curve) == EPOCHS
        assert sorted(epoch for key, epoch in source.epochs if key == "0001 die-once") == [1, 2, 3, 4]
        assert "0001 die-once: worker process died; running it again" in caplog.text

    def test_a_trial_whose_workers_die_fails_with_its_curve(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "die", "train"))
        engine.run(source)
        assert source.done["0001 die"].error == "worker process died"
        assert [result.epoch for result in source.done["0001 die"].curve] == [1]
        assert sum(outcome.error is None for outcome in source.done.values()) == 2

    def test_an_idle_worker_that_died_is_replaced(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "train"))
        engine.run(source)
        for outcome in source.done.values():
            os.kill(outcome.facts["pid"], signal.SIGKILL)
        again = ListSource(make_specs("train", "train", "train"))
        engine.run(again)
        assert all(outcome.error is None for outcome in again.done.values())

    def test_out_of_memory_reduces_the_concurrency(
        self, engine: Engine, task: FakeTask, caplog: pytest.LogCaptureFixture
    ) -> None:
        def closed() -> set[Path]:
            return set(task.folder.glob("closed-*"))

        before = closed()
        source = ListSource(make_specs("oom-once", "train", "train", "train"))
        engine.run(source)
        assert wait_for(lambda: closed() > before), "the worker that ran out of memory ends, which frees its memory"
        assert len(source.done) == 4
        # The trial is requeued if the other worker has a trial by then; alone on the device it fails.
        assert source.abandoned == ["0000 oom-once"]
        assert "concurrent trials reduced to 1" in caplog.text

    def test_log_records_and_output_of_workers(
        self, engine: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with caplog.at_level(logging.INFO, logger="nbt"):
            engine.run(ListSource(make_specs("train")))
        engine.close()
        assert "runner 0 is ready" in caplog.text
        assert capfd.readouterr().out == "", "stdout is for results only"

    def test_facts_include_the_location(self, engine: Engine) -> None:
        source = ListSource(make_specs("train"))
        engine.run(source)
        facts = source.done["0000 train"].facts
        assert facts["node"] == platform.node()
        assert facts["threads"] == "1"
        assert "gpu_index" not in facts


def test_leaves_no_temporary_files(tmp_path: Path) -> None:
    source = ListSource(make_specs("train"))
    with RayEngine(FakeTask(tmp_path), runner=RUNNER) as engine:  # type: ignore[arg-type]
        engine.run(source)
    assert not Path(source.done["0000 train"].facts["temporary"]).exists()
    assert not engine._folder.path.exists()


def test_a_failing_setup_fails_the_trial(tmp_path: Path) -> None:
    source = ListSource(make_specs("train"))
    with RayEngine(FakeTask(tmp_path, "fails"), workers=1, runner=RUNNER) as engine:  # type: ignore[arg-type]
        engine.run(source)
    error = f"a worker could not be set up on {platform.node()} (RuntimeError: set-up failed)"
    assert source.done["0000 train"].error == error
