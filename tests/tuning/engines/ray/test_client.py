"""Ray Client: a driver that is on no node of the cluster and connects with a ray:// address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuning.engines.local_ray import local_cluster
from tests.tuning.engines.processes import TIMEOUT_SECONDS

pytestmark = pytest.mark.slow

DRIVER = """
import sys
from pathlib import Path
from nbt.tuning.engines.ray.engine import RayEngine
from nbt.tuning.engines.ray.options import RayOptions
from tests.tuning.engines.contract import ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask

source = ListSource(make_specs("train", "die-once", "fail", "train"))
source.stop = lambda spec, result: "too slow" if spec is first and result.epoch == 2 else None
first = source.waiting[0]
task = FakeTask(Path(sys.argv[2]))
with RayEngine(task, workers=2, options=RayOptions(sys.argv[1], cpus_per_trial=1), runner=RUNNER) as engine:
    engine.run(source)
for key in sorted(source.done):
    print(key, len(source.done[key].curve), source.done[key].stopped, source.done[key].error, sep="; ")
"""


def test_trials_run_over_ray_client(tmp_path: Path) -> None:
    """Runs in a separate process, as Ray allows one connection per process; one worker dies."""
    pytest.importorskip("grpc", reason='needs grpcio: pip install "ray[client]"')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with local_cluster(num_cpus=2, ray_client_server_port=port):
        process = subprocess.run(
            [sys.executable, "-c", DRIVER, f"ray://127.0.0.1:{port}", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert process.stdout.splitlines() == [
        "0000 train; 2; too slow; None",
        "0001 die-once; 4; None; None",
        "0002 fail; 0; None; ValueError: no",
        "0003 train; 4; None; None",
    ], process.stderr
