"""Creation of engines: the number of workers, and what workers share."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbt.cache import cache_entries, remove_entry
from nbt.data.image_store import ImageStore
from nbt.errors import UsageError
from nbt.paths import cache_folder
from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.results import TrialSpec
from nbt.tuning.engines import factory as factory_module
from nbt.tuning.engines import worker_count
from nbt.tuning.engines.factory import EngineFactory
from nbt.tuning.engines.local import LocalEngine
from nbt.tuning.engines.process_pool import ProcessPoolEngine
from nbt.tuning.engines.worker_count import MachineResources
from tests.tuning.engines.contract import ListSource
from tests.tuning.engines.image_runner import RUNNER as IMAGE_RUNNER

SETTINGS = TransferSettings(epochs=2, frozen_depth=0.4)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=6)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_count, "this_machine", lambda: MachineResources(2, 8 << 30))


def make_specs(n: int) -> list[TrialSpec]:
    return [TrialSpec(key=f"trial-{number}", settings=SETTINGS, seed=number) for number in range(n)]


def folders_of(engine: Any) -> Path:
    folder = engine._engine._setup.shared_folder
    assert isinstance(folder, Path)
    return folder


@pytest.fixture
def two_workers(digits: Task) -> Iterator[LocalEngine]:
    with EngineFactory("local", 2) as factory:
        engine = factory.make(digits)
        assert isinstance(engine, LocalEngine)
        yield engine


def test_one_core_runs_trials_in_this_process(digits: Task) -> None:
    with EngineFactory("local") as factory:
        engine = factory.make(digits)
        assert isinstance(engine, LocalEngine) and not isinstance(engine._engine, ProcessPoolEngine)


def test_auto_starts_a_worker_per_core_and_says_so(
    digits: Task, two_cores: None, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[Any] = []
    for progress in (lambda *line: lines.append(line), None):
        with caplog.at_level(logging.INFO, logger="nbt"), EngineFactory("local", max_runs=7) as factory:
            engine: Any = factory.make(digits, progress)
            assert engine._engine._setup.workers == 2
    assert lines == [("2 workers with 1 thread each: 2 usable cores", 0, 0)]
    assert caplog.messages == ["2 workers with 1 thread each: 2 usable cores"]


def test_the_results_of_workers_equal_those_of_this_process(digits: Task, two_workers: LocalEngine) -> None:
    alone, together = ListSource(make_specs(4)), ListSource(make_specs(4))
    with EngineFactory("local", 1) as factory:
        factory.make(digits).run(alone)
    two_workers.run(together)
    curves = [
        {key: [(e.train_loss, e.val_accuracy) for e in outcome.curve] for key, outcome in source.done.items()}
        for source in (alone, together)
    ]
    assert curves[0] == curves[1]
    assert together.max_running == 2


def test_workers_share_frozen_features_and_keep_them_for_the_next_search(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache_folder("features")
    shutil.rmtree(folder)
    views = min(SETTINGS.epochs, SETTINGS.views) + 1  # of both trials, and one of the validation images
    found = []
    for _ in range(2):
        with EngineFactory("local", 2) as factory:
            engine = factory.make(digits)
            engine.run(ListSource(make_specs(2)))
            assert folders_of(engine) == folder
            [entry] = cache_entries(["features"])
            assert not remove_entry(entry), "the workers use it"
        found.append({path: path.stat().st_ino for path in folder.rglob("*.npy")})
        assert len(found[-1]) == views
    assert found[0] == found[1]
    monkeypatch.setenv("NBT_CACHE_LIMIT", "1K")
    with EngineFactory("local", 2) as factory:
        factory.make(digits)
    assert not list(folder.rglob("*.npy")), "they count for the bound of the cache"


def test_workers_map_the_same_file_of_images_and_have_one_thread(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("nbt.tuning.engines.worker_process.usable_cores", lambda: 2)
    source = ListSource(make_specs(4))
    with EngineFactory("local", 2, runner=IMAGE_RUNNER) as factory:
        factory.make(digits).run(source)
    facts = [outcome.facts for outcome in source.done.values()]
    assert len({fact["pid"] for fact in facts}) == 2
    assert {fact["file"] for fact in facts} == {str(digits.images.path)}
    assert {fact["sum"] for fact in facts} == {int(digits.images.array.sum())}
    assert all(fact["mapped"] for fact in facts)
    assert facts[0]["environment"] == {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "20000"}


def test_images_without_a_file_are_written_once_for_the_workers(digits: Task) -> None:
    task = dataclasses.replace(digits, images=ImageStore(digits.images.array))
    assert task.images.path is None
    with EngineFactory("local", 2) as factory:
        engine: Any = factory.make(task)
        images = engine._engine._setup.task.images
        folder = folders_of(engine).parent
        assert images.path == folder / "28px" / "images.npy"
        np.testing.assert_array_equal(images.array, task.images.array)
        source = ListSource(make_specs(2))
        engine.run(source)
        assert all(outcome.error is None for outcome in source.done.values())
        assert list((folder / "features").rglob("*.npy"))
    assert not folder.exists()


def test_workers_can_be_started_in_advance(two_workers: LocalEngine) -> None:
    two_workers.start_workers()
    pool: Any = two_workers._engine
    pids = {worker.pid for worker in pool._workers.values()}
    source = ListSource(make_specs(3))
    two_workers.run(source)
    assert len(source.done) == 3
    assert {worker.pid for worker in pool._workers.values()} == pids and len(pids) == 2


def test_workers_that_start_before_the_task_is_known_are_used(digits: Task) -> None:
    with EngineFactory("local", 2) as factory:
        factory.start_spares()
        pids = {spare.pid for spare in factory._spares}
        engine: Any = factory.make(digits)
        source = ListSource(make_specs(3))
        engine.run(source)
        assert all(outcome.error is None for outcome in source.done.values()) and len(source.done) == 3
        assert {worker.pid for worker in engine._engine._workers.values()} == pids and len(pids) == 2


@pytest.mark.parametrize("makes", [True, False])
def test_workers_that_are_not_used_end_with_the_factory(digits: Task, makes: bool) -> None:
    with EngineFactory("local", 2) as factory:
        factory.start_spares()
        spares = list(factory._spares)
        if makes:  # fewer workers than were started
            factory._max_runs = 1
            factory.make(digits)
            assert not any(spare.alive() for spare in spares)
    assert len(spares) == 2 and not any(spare.alive() for spare in spares)


@pytest.mark.parametrize(
    ("name", "workers", "options"),
    [
        ("local", 1, {}),
        ("local", 2, {"max_runs": 1}),
        ("local", 5, {}),
        ("local", "auto", {}),
        ("local", 2, {"runner": IMAGE_RUNNER}),
        ("ray", 2, {}),
    ],
)
def test_no_workers_start_in_advance_where_they_may_not_be_needed(
    name: str, workers: int | str, options: dict[str, Any]
) -> None:
    factory = EngineFactory(name, workers, **options)
    factory.start_spares()
    assert factory._spares == []


@pytest.mark.parametrize("workers", ["many", "2", "", 0, -1, 1.5, True])
def test_other_numbers_of_workers_are_wrong_usage(workers: Any) -> None:
    with pytest.raises(UsageError, match="workers"):
        EngineFactory("local", workers)


@pytest.mark.parametrize(("gpus", "expected"), [(0, 4), (2, 2)])
def test_ray_on_this_machine_runs_a_trial_per_core_or_gpu(
    digits: Task, monkeypatch: pytest.MonkeyPatch, gpus: int, expected: int
) -> None:
    machine = MachineResources(4, 64 << 30, gpus)
    monkeypatch.setattr(worker_count, "this_machine", lambda: machine)
    monkeypatch.setattr(factory_module, "this_machine", lambda: machine)
    assert EngineFactory("ray")._choose_workers(digits)[0] == expected
