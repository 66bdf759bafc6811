"""The Ray engine on a local Ray instance: the contract, and failures of workers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbt.tuning.engines.base import Engine
from nbt.tuning.engines.ray.engine import RayEngine
from nbt.tuning.engines.ray.options import RayOptions
from tests.tuning.engines.contract import EngineContract, ListSource, WorkerProcessContract, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from tests.tuning.engines.local_ray import local_ray

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


class TestOneWorker(RayContract, EngineContract):
    workers = 1


class TestTwoWorkers(RayContract, WorkerProcessContract):
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
