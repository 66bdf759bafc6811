"""A cluster whose nodes differ: where trials run, on which GPUs, and what is said where these cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbt.search.engines.ray import RayEngine
from nbt.search.engines.ray_options import RayOptions
from tests.search.engines.contract import ListSource, make_jobs
from tests.search.engines.fake_runner import RUNNER, FakeTask
from tests.search.engines.local_ray import LEAN, local_cluster

pytestmark = pytest.mark.slow

RAYLET, GPUS = "RAY_RAYLET_PID", "CUDA_VISIBLE_DEVICES"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two CPUs and no GPU on the one node, a CPU and two GPUs (which nobody has to own for that) on the other."""
    with local_cluster(num_cpus=2) as cluster:
        cluster.add_node(num_cpus=1, num_gpus=2, **LEAN)
        cluster.connect()
        yield cluster


def run(folder: Path, workers: int, jobs: int, **options: float) -> list[dict[str, Any]]:
    """Facts of some slow jobs."""
    source = ListSource(make_jobs(*["slow"] * jobs))
    with RayEngine(FakeTask(folder), workers=workers, options=RayOptions(**options), runner=RUNNER) as engine:  # type: ignore[arg-type]
        engine.run(source)
    assert [outcome.error for outcome in source.done.values()] == [None] * jobs
    assert source.most_running == workers
    return [dict(outcome.facts) for outcome in source.done.values()]


def test_trials_fill_all_nodes(cluster: Any, tmp_path: Path) -> None:
    facts = run(tmp_path, workers=3, jobs=6, cpus_per_trial=1, gpus_per_trial=0)
    at = {fact["pid"]: fact[RAYLET] for fact in facts}
    assert sorted(Counter(at.values()).values()) == [1, 2]
    assert not any("gpu_index" in fact for fact in facts)
    assert {fact[GPUS] for fact in facts} <= {"", None}, "a trial that asked for no GPU must see none"


def test_trials_that_share_gpus_run_where_these_are(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = run(tmp_path, workers=4, jobs=8, gpus_per_trial=0.5)
    at = {fact["pid"]: (fact[RAYLET], fact["gpu_index"]) for fact in facts}
    assert len({raylet for raylet, _ in at.values()}) == 1
    assert Counter(gpu for _, gpu in at.values()) == {"0": 2, "1": 2}
    assert all(fact[GPUS] == fact["gpu_index"] for fact in facts)
    assert "has GPU 0, but torch sees none there" in caplog.text
