"""A driver that is interrupted, and an address at which another server than Ray listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuning.engines.local_ray import set_ray_environment
from tests.tuning.engines.processes import TIMEOUT_SECONDS, is_running, wait_for

pytestmark = pytest.mark.slow

DRIVER = """
from pathlib import Path
from tests.tuning.engines.contract import ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from nbt.tuning.engines.ray.engine import RayEngine

source = ListSource(make_specs(*{behaviours!r}))
try:
    with RayEngine(FakeTask(Path({folder!r})), workers=2, runner=RUNNER) as engine:
        engine.run(source)
except KeyboardInterrupt:
    print("abandoned", *sorted(source.abandoned), sep=",")
print("done", *sorted(source.done), sep=",")
"""


def start_driver(folder: Path, *behaviours: str) -> subprocess.Popen[str]:
    set_ray_environment()
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(behaviours=behaviours, folder=str(folder))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def hanging_workers(folder: Path) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("hanging-*")]


def test_ctrl_c_abandons_running_trials_and_ends_the_started_ray(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, "hang", "hang", "train")
    assert wait_for(lambda: len(hanging_workers(tmp_path)) == 2 or driver.poll() is not None)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    out, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert out == "abandoned,0000 hang,0001 hang\ndone\n", err
    assert wait_for(lambda: not any(is_running(pid) for pid in hanging_workers(tmp_path)))


def test_an_address_of_another_server() -> None:
    """Runs in a separate process, because Ray's remaining state would disturb other tests."""
    text = (
        "import socket\n"
        "from nbt.errors import UsageError\n"
        "from nbt.tuning.engines.ray import cluster\n"
        "from nbt.tuning.engines.ray.cluster import connect\n"
        "from nbt.tuning.engines.ray.options import RayOptions\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    cluster.RESPONSE_TIMEOUT_SECONDS = 4.0\n"
        "    try:\n"
        "        connect(RayOptions(f'127.0.0.1:{server.getsockname()[1]}'))\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "no Ray cluster responds" in process.stdout, process.stderr
