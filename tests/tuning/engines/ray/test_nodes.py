"""A cluster with different nodes: the nodes and GPUs of trials, and trials whose node is killed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import TrialSpec
from nbt.tuning.engines.ray.engine import RayEngine
from nbt.tuning.engines.ray.options import RayOptions
from tests.tuning.engines.contract import ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from tests.tuning.engines.local_ray import MINIMAL_NODE_OPTIONS, local_cluster
from tests.tuning.engines.processes import is_running, wait_for

pytestmark = pytest.mark.slow

FAST_FAILURE_DETECTION = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}
RAYLET, GPUS = "RAY_RAYLET_PID", "CUDA_VISIBLE_DEVICES"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """One node with two CPUs and no GPU, one with one CPU and two GPUs (which need not exist)."""
    with local_cluster(num_cpus=2, _system_config=FAST_FAILURE_DETECTION) as cluster:
        second = cluster.add_node(num_cpus=1, num_gpus=2, **MINIMAL_NODE_OPTIONS)
        cluster.connect()
        yield cluster, second


def waiting_workers(folder: Path) -> list[int]:
    """Returns the process IDs of the workers that wait in their last epoch."""
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("waiting-*")]


def run(folder: Path, workers: int, **options: float) -> list[dict[str, Any]]:
    """Runs trials that wait for one another, so that each has a worker of its own; returns their facts."""
    source = ListSource(make_specs(*["wait"] * workers))

    def release_when_all_wait() -> None:
        wait_for(lambda: len(waiting_workers(folder)) == workers)
        (folder / "go").touch()

    starter = threading.Thread(target=release_when_all_wait)
    starter.start()
    with RayEngine(FakeTask(folder), workers=workers, options=RayOptions(**options), runner=RUNNER) as engine:  # type: ignore[arg-type]
        engine.run(source)
    starter.join()
    assert [outcome.error for outcome in source.done.values()] == [None] * workers
    return [dict(outcome.facts) for outcome in source.done.values()]


def test_trials_fill_all_nodes(nodes: Any, tmp_path: Path) -> None:
    facts = run(tmp_path, workers=3, cpus_per_trial=1, gpus_per_trial=0)
    at = {fact["pid"]: fact[RAYLET] for fact in facts}
    assert sorted(Counter(at.values()).values()) == [1, 2]
    assert not any("gpu_index" in fact for fact in facts)
    assert {fact["requested_device"] for fact in facts} == {"cpu"}, "Ray hides no GPU from a trial that requested none"


def test_trials_that_share_gpus_run_on_nodes_with_gpus(
    nodes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = run(tmp_path, workers=4, gpus_per_trial=0.5)
    at = {fact["pid"]: (fact[RAYLET], fact["gpu_index"]) for fact in facts}
    assert len({raylet for raylet, _ in at.values()}) == 1
    assert Counter(gpu for _, gpu in at.values()) == {"0": 2, "1": 2}
    assert all(fact[GPUS] == fact["gpu_index"] for fact in facts)
    assert {fact["requested_device"] for fact in facts} == {None}
    assert "has GPU 0, but PyTorch finds no GPU there" in caplog.text


def test_a_killed_node_loses_no_trial_and_no_checkpoint(nodes: Any, tmp_path: Path) -> None:
    """Kills a node while all nodes are full: its trial continues on the other node, from its checkpoint."""
    cluster, second = nodes
    specs = [
        TrialSpec(key=f"{i:04d} wait", settings=TransferSettings(epochs=6), checkpoint=tmp_path / f"{i}.pt")
        for i in range(4)
    ]
    source = ListSource(specs)

    def kill_a_node() -> None:
        if wait_for(lambda: len(waiting_workers(tmp_path)) == 3):
            cluster.remove_node(second, allow_graceful=False)
            wait_for(lambda: not all(map(is_running, waiting_workers(tmp_path))))
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    options = RayOptions(cpus_per_trial=1, gpus_per_trial=0)
    with RayEngine(FakeTask(tmp_path), workers=3, options=options, runner=RUNNER) as engine:  # type: ignore[arg-type]
        engine.run(source)
    killer.join()
    assert [source.done[spec.key].error for spec in specs] == [None] * 4
    assert len(source.epochs) == len(set(source.epochs)) == 4 * 6, "the source receives each epoch once"
    resumed = [outcome for outcome in source.done.values() if outcome.facts["resumed_after"]]
    assert [outcome.facts["resumed_after"] for outcome in resumed] == [3]
    assert [result.epoch for result in resumed[0].curve] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("*.pt"))
