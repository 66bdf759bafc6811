"""Studies of the command line whose workers, drivers and cluster head are killed; no finished work is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import NbtError
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.storage.studies import read_study, resolve_storage
from tests.tuning.engines.local_ray import local_cluster, set_ray_environment
from tests.tuning.engines.processes import TIMEOUT_SECONDS, find_processes, is_running, process_title, wait_for
from tests.tuning.engines.quick_study import FOLDER, first_paused

pytestmark = pytest.mark.slow

LENGTH, BUDGET = 8, 9
RESUME_HINT = "all results are saved; run the same command again to resume, also with --engine local"
ARGUMENTS = [
    *("search", "--dataset", "digits", "--backbone", "conv3(width=8)", "--weights", "none", "--shots", "24"),
    *("--epochs", str(LENGTH), "--budget", str(BUDGET), "--workers", "2", "--pruner", "none", "--no-heuristics"),
    *("--final-seeds", "2", "--study", "s", "--json"),
]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Folder of Ray's files; its name is unique in the environments of processes, and short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="nbtr", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Drivers:
    """Starts `nbt search` in a folder; `close` ends the drivers that still run."""

    def __init__(self, folder: Path, ray_folder: Path) -> None:
        set_ray_environment()
        self.folder, self.workers, self.temporary = folder, folder / "workers", folder / "temporary"
        for path in (self.workers, self.temporary):
            path.mkdir()
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAY_TMPDIR": str(ray_folder),
            "TMPDIR": str(self.temporary),
        }
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.tuning.engines.quick_study", str(self.workers)]
        driver = subprocess.Popen(
            [*command, *ARGUMENTS, *options],
            cwd=self.folder,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(driver)
        return driver

    def pause_from(self, number: int) -> None:
        """Pauses trials with this or a higher number at epoch 3."""
        (self.workers / "hold").write_text(str(number))

    def wait_until_paused(self, epochs: int = 6) -> StudyRecord:
        """Waits until two trials are paused that have `epochs` epochs together."""
        driver = self._started[-1]

        def both_paused() -> bool:
            record = self.read()
            trials = running(record) if record is not None else []
            epochs_of_paused = [len(trial.curve) for trial in trials if trial.number >= first_paused(self.workers)]
            return driver.poll() is not None or (len(epochs_of_paused) == 2 and sum(epochs_of_paused) == epochs)

        if not wait_for(both_paused) or driver.poll() is not None:
            driver.kill()
            pytest.fail(driver.communicate()[1])
        record = self.read()
        assert record is not None
        return record

    def kill(self) -> str:
        """Kills the newest driver; returns its stderr."""
        self._started[-1].kill()
        return self._started[-1].communicate(timeout=TIMEOUT_SECONDS)[1]

    def close(self) -> None:
        for driver in self._started:
            driver.kill()
            driver.communicate()

    def read(self) -> StudyRecord | None:
        if not any(self.workers.glob("[0-9]*")):
            return None  # the driver may be creating the tables, and a reader would create them at the same time
        try:
            return read_study(resolve_storage(None, self.folder), "s")
        except NbtError:
            return None

    def worker_pids(self) -> list[int]:
        return [int(path.name) for path in self.workers.glob("[0-9]*") if is_running(int(path.name))]


@pytest.fixture
def drivers(tmp_path: Path, ray_folder: Path) -> Iterator[Drivers]:
    drivers = Drivers(tmp_path, ray_folder)
    yield drivers
    drivers.close()


def remaining_ray_processes(folder: Path) -> list[int]:
    """Returns the processes of a Ray instance but its raylet's two agents, which may end a minute later."""
    return [pid for pid in find_processes(str(folder)) if not process_title(pid).endswith("Agent")]


def running(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.state == "running"]


def finished(record: StudyRecord) -> dict[int, Any]:
    return {
        trial.number: (trial.settings, trial.finished, losses(trial))
        for trial in record.trials
        if trial.state == "complete"
    }


def test_a_study_survives_killed_workers_and_drivers(drivers: Drivers, ray_folder: Path) -> None:
    """Kills a worker and then the driver, then the next driver; the local engine finishes the study."""
    drivers.pause_from(2)
    drivers.start("--engine", "ray")
    drivers.wait_until_paused()
    os.kill(drivers.worker_pids()[0], signal.SIGKILL)
    first = drivers.wait_until_paused(epochs=7)  # the trial of the killed worker continued from epoch 3
    stderr_text = drivers.kill()
    assert "worker process died; running it again" in stderr_text
    assert stderr_text.endswith(f"{RESUME_HINT}\n")
    assert wait_for(lambda: not remaining_ray_processes(ray_folder)), "processes of the killed driver's Ray remain"

    drivers.pause_from(6)
    drivers.start("--engine", "ray")
    second = drivers.wait_until_paused()
    drivers.kill()
    assert wait_for(lambda: not remaining_ray_processes(ray_folder))  # so that their folders can be removed
    assert [sorted(finished(record)) for record in (first, second)] == [[0, 1], [0, 1, 4, 5]]

    drivers.pause_from(99)
    driver = drivers.start("--engine", "local")
    out, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert driver.returncode == 0, err
    last = drivers.read()
    assert last is not None
    assert json.loads(out)["trials"]["complete"] == last.counts()["complete"] >= 6
    assert last.has_spent_budget
    assert last.cost <= BUDGET
    assert not running(last)
    for earlier in (first, second):
        assert finished(earlier).items() <= finished(last).items(), "a finished trial was lost or changed"
    check_resumed_trials(last)
    assert wait_for(lambda: not remaining_ray_processes(ray_folder))
    assert not [path.name for path in drivers.temporary.iterdir() if path.name.startswith("nbt-")]


def test_a_lost_head_ends_the_search_with_a_message_and_all_results_saved(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(drivers.workers))  # for the cluster, which is not a child process of the driver
    drivers.pause_from(2)
    with local_cluster(num_cpus=2) as cluster:
        # Ray ends a process whose head has been unreachable for this long; the search must end before.
        timeout = {"RAY_gcs_rpc_server_reconnect_timeout_s": "24"}
        driver = drivers.start("--engine", "ray", "--ray-address", cluster.address, **timeout)
        drivers.wait_until_paused()
        cluster.head_node.kill_gcs_server()
        _, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert driver.returncode == 1, err
    message = next(line for line in err.splitlines() if line.startswith("error:"))  # Ray's own messages may follow
    assert message.startswith("error: the connection to Ray was lost (the head of the Ray cluster at "), err
    assert message.endswith(RESUME_HINT)
    record = drivers.read()
    assert record is not None
    assert not running(record)
    assert sorted(finished(record)) == [0, 1]
    assert [trial.reason.partition(":")[0] for trial in record.trials if trial.state == "failed"] == ["interrupted"] * 2
    assert wait_for(lambda: not any(map(is_running, drivers.worker_pids())))


def check_resumed_trials(record: StudyRecord) -> None:
    """Checks that another trial continued each killed one, from the last checkpoint that the driver had."""
    successors = {trial.continues: trial for trial in record.trials if trial.continues is not None}
    killed = [trial for trial in record.trials if trial.state == "failed"]
    assert [trial.number for trial in killed] == [2, 3, 6, 7]
    assert {trial.reason.partition(":")[0] for trial in killed} == {"interrupted"}
    for trial in killed:
        successor = successors.pop(trial.number)
        restored = len(successor.curve) - successor.epochs_spent
        assert restored == len(trial.curve) >= 3
        assert losses(successor)[:restored] == losses(trial)
        assert [result.epoch for result in successor.curve] == list(range(1, LENGTH + 1))
    assert not successors


def losses(trial: TrialRecord) -> list[float | None]:
    return [result.val_loss for result in trial.curve]
