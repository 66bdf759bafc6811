"""What can happen to a cluster: a node is killed, the driver is killed or interrupted. Everything here is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbt.search.engines.ray import RayEngine
from nbt.search.engines.ray_options import RayOptions
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialJob
from tests.search.engines.contract import ListSource
from tests.search.engines.fake_runner import RUNNER, FakeTask
from tests.search.engines.local_ray import OPTIONS, quiet

pytestmark = pytest.mark.slow

PATIENCE = 240.0
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


def wait_for(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.05)
    return True


def runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """Two raylets on this machine, with one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    quiet()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": QUICK_TO_NOTICE, **OPTIONS}
    )
    second = cluster.add_node(num_cpus=1, **OPTIONS)
    try:
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_killed_node_loses_no_job_and_no_checkpoint(two_nodes: Any, tmp_path: Path) -> None:
    """Both jobs run on a node each when one node goes: its job continues on the other one, from its checkpoint."""
    cluster, second = two_nodes
    jobs = [
        TrialJob(key=f"{i:04d} slow", settings=TransferSettings(epochs=6), checkpoint=tmp_path / f"{i}.pt")
        for i in range(4)
    ]
    source = ListSource(jobs)
    begun: set[str] = set()
    killed: list[str] = []

    def kill_a_node(job: TrialJob, result: EpochResult) -> None:
        if result.epoch == 3:
            begun.add(job.key)
        if len(begun) == 2 and not killed:
            killed.extend(begun)
            cluster.remove_node(second, allow_graceful=False)

    source.stop = kill_a_node
    address = cluster.address
    with RayEngine(
        FakeTask(tmp_path),  # type: ignore[arg-type]
        workers=2,
        options=RayOptions(address, cpus_per_trial=1),
        runner=RUNNER,
    ) as engine:
        engine.run(source)
    assert killed
    assert source.done.keys() == {job.key for job in jobs}
    assert all(outcome.error is None for outcome in source.done.values())
    assert len(source.epochs) == len(set(source.epochs)) == 4 * 6, "the source is asked once about every epoch"
    resumed = [outcome for key, outcome in source.done.items() if outcome.facts.get("resumed_after")]
    assert [outcome.facts["resumed_after"] >= 2 for outcome in resumed] == [True]
    assert [result.epoch for result in resumed[0].curve] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("*.pt"))


DRIVER = """
from pathlib import Path
from tests.search.engines.contract import ListSource, make_jobs
from tests.search.engines.fake_runner import RUNNER, FakeTask
from nbt.search.engines.ray import RayEngine

source = ListSource(make_jobs(*{acts!r}))
try:
    with RayEngine(FakeTask(Path({folder!r})), workers=2, runner=RUNNER) as engine:
        engine.run(source)
except KeyboardInterrupt:
    print("abandoned", *sorted(source.abandoned), sep=",")
print("done", *sorted(source.done), sep=",")
"""


def start_driver(folder: Path, *acts: str) -> subprocess.Popen[str]:
    quiet()
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(acts=acts, folder=str(folder))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def hanging(folder: Path) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("hanging-*")]


def test_ctrl_c_abandons_running_jobs_and_ends_the_ray_that_was_started(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, "hang", "hang", "train")
    assert wait_for(lambda: len(hanging(tmp_path)) == 2 or driver.poll() is not None)
    os.killpg(driver.pid, signal.SIGINT)  # what a terminal does
    out, err = driver.communicate(timeout=PATIENCE)
    assert out == "abandoned,0000 hang,0001 hang\ndone\n", err
    assert wait_for(lambda: not any(runs(pid) for pid in hanging(tmp_path)))


def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, "hang", "hang")
    assert wait_for(lambda: len(hanging(tmp_path)) == 2 or driver.poll() is not None)
    pids = hanging(tmp_path)
    assert len(pids) == 2
    driver.kill()
    driver.communicate(timeout=PATIENCE)
    assert wait_for(lambda: not any(runs(pid) for pid in pids))


def test_an_address_that_listens_but_is_no_ray() -> None:
    """In a process of its own: what Ray left behind in it would be in the way of the other tests."""
    text = (
        "import socket, time\n"
        "from nbt.errors import UsageError\n"
        "from nbt.search.engines.ray_cluster import connect\n"
        "from nbt.search.engines.ray_options import RayOptions\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    began = time.monotonic()\n"
        "    try:\n"
        "        connect(RayOptions(f'127.0.0.1:{server.getsockname()[1]}'))\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "no Ray cluster answers" in found.stdout, found.stderr
