"""Real studies by the command line: workers, drivers and the head of the cluster are killed, and nothing is lost."""

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

import optuna
import pytest

from nbt.errors import NbtError
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.storage.studies import read_study, resolve_storage
from tests.tuning.engines.local_ray import local_cluster, set_ray_environment
from tests.tuning.engines.processes import TIMEOUT_SECONDS, find_processes, is_running, process_title, wait_for
from tests.tuning.engines.quick_study import FOLDER, first_paused

pytestmark = pytest.mark.slow

LENGTH, BUDGET = 8, 9
ARGUMENTS = [
    *("search", "--dataset", "digits", "--backbone", "conv3(width=8)", "--weights", "none", "--shots", "24"),
    *("--epochs", str(LENGTH), "--budget", str(BUDGET), "--workers", "2", "--pruner", "none", "--no-heuristics"),
    *("--final-seeds", "1", "--study", "s", "--json"),
]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's own files: a name that no other process has in its environment, and a short one for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="nbtr", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Drivers:
    """Starts `nbt search` in a folder; ends what still runs."""

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
        words = [sys.executable, "-m", "tests.tuning.engines.quick_study", str(self.workers)]
        driver = subprocess.Popen(
            [*words, *ARGUMENTS, *options],
            cwd=self.folder,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(driver)
        return driver

    def hold(self, number: int) -> None:
        """Lets trials from this number on go no further than epoch 3."""
        (self.workers / "hold").write_text(str(number))

    def wait_until_paused(self, epochs: int = 6) -> StudyRecord:
        """Waits until two trials run and are held, with so many epochs between them."""
        driver = self._started[-1]

        def there() -> bool:
            record = self.read()
            trials = running(record) if record is not None else []
            held = [len(trial.curve) for trial in trials if trial.number >= first_paused(self.workers)]
            return driver.poll() is not None or (len(held) == 2 and sum(held) == epochs)

        if not wait_for(there) or driver.poll() is not None:
            driver.kill()
            pytest.fail(driver.communicate()[1])
        record = self.read()
        assert record is not None
        return record

    def kill(self) -> str:
        """Kills the newest driver; returns what it has said."""
        self._started[-1].kill()
        return self._started[-1].communicate(timeout=TIMEOUT_SECONDS)[1]

    def close(self) -> None:
        for driver in self._started:
            driver.kill()
            driver.communicate()

    def read(self) -> StudyRecord | None:
        if not any(self.workers.glob("[0-9]*")):
            return None  # the driver may be making the tables, and a reader would make them beside it
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
    """Processes of a Ray, but for two small helpers of its raylet, which may notice its end a minute later."""
    return [pid for pid in find_processes(str(folder)) if not process_title(pid).endswith("Agent")]


def running(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.state == "running"]


def finished(record: StudyRecord) -> dict[int, Any]:
    return {
        trial.number: (trial.settings, trial.finished, losses(trial))
        for trial in record.trials
        if trial.state == "complete"
    }


def test_a_study_outlives_its_worker_and_its_drivers(drivers: Drivers, ray_folder: Path) -> None:
    """Killed while trials run, twice; the first time after a worker; the local engine does the rest."""
    drivers.hold(2)
    drivers.start("--engine", "ray")
    drivers.wait_until_paused()
    os.kill(drivers.worker_pids()[0], signal.SIGKILL)
    first = drivers.wait_until_paused(epochs=7)  # the one that was killed went on from epoch 3
    said = drivers.kill()
    assert "worker process died; running it again" in said
    assert said.endswith("everything is kept: the same command resumes, also with --engine local\n")
    assert wait_for(lambda: not remaining_ray_processes(ray_folder)), "something of the killed driver's Ray is left"

    drivers.hold(6)
    drivers.start("--engine", "ray")
    second = drivers.wait_until_paused()
    drivers.kill()
    assert wait_for(lambda: not remaining_ray_processes(ray_folder))  # and their folders can be cleared
    assert [sorted(finished(record)) for record in (first, second)] == [[0, 1], [0, 1, 4, 5]]

    drivers.hold(99)
    driver = drivers.start("--engine", "local")
    out, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert driver.returncode == 0, err
    last = drivers.read()
    assert last is not None
    assert json.loads(out)["trials"]["complete"] == last.counts()["complete"] >= 6
    assert last.epochs_budget is not None and last.epochs_budget - LENGTH < last.epochs_spent <= last.epochs_budget
    assert not running(last)
    for earlier in (first, second):
        assert finished(earlier).items() <= finished(last).items(), "a finished trial was lost or changed"
    check_resumed_trials(last, drivers.folder)
    assert wait_for(lambda: not remaining_ray_processes(ray_folder))
    assert not [path.name for path in drivers.temporary.iterdir() if path.name.startswith("nbt-")]


def test_a_lost_head_ends_the_search_with_words_and_everything_kept(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(drivers.workers))  # for the cluster, which is no child of the driver
    drivers.hold(2)
    with local_cluster(num_cpus=2) as cluster:
        # Ray ends a process whose head has been away for so long; the search has to end before.
        patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "24"}
        driver = drivers.start("--engine", "ray", "--ray-address", cluster.address, **patience)
        drivers.wait_until_paused()
        cluster.head_node.kill_gcs_server()
        _, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert driver.returncode == 1, err
    told = next(line for line in err.splitlines() if line.startswith("error:"))  # Ray's own last words may follow
    assert told.startswith("error: the connection to Ray is lost (the head of the Ray cluster at "), err
    assert told.endswith("everything is kept: the same command resumes, also with --engine local")
    record = drivers.read()
    assert record is not None
    assert not running(record)
    assert sorted(finished(record)) == [0, 1]
    assert [trial.reason.partition(":")[0] for trial in record.trials if trial.state == "failed"] == ["interrupted"] * 2
    assert wait_for(lambda: not any(map(is_running, drivers.worker_pids())))


def check_resumed_trials(record: StudyRecord, folder: Path) -> None:
    """Each killed trial went on as another one, from the last checkpoint that the driver had."""
    trials = optuna.load_study(study_name="s", storage=resolve_storage(None, folder)).trials
    trained = {trial.number: trial.user_attrs["progress"]["trained"] for trial in trials}
    heirs = {trial.user_attrs["run"]["continues"]: record.trials[trial.number] for trial in trials}
    heirs.pop(None)
    killed = [trial for trial in record.trials if trial.state == "failed"]
    assert [trial.number for trial in killed] == [2, 3, 6, 7]
    assert {trial.reason.partition(":")[0] for trial in killed} == {"interrupted"}
    for trial in killed:
        heir = heirs.pop(trial.number)
        known = len(heir.curve) - trained[heir.number]
        assert known == len(trial.curve) >= 3
        assert losses(heir)[:known] == losses(trial)
        assert [one.epoch for one in heir.curve] == list(range(1, LENGTH + 1))
    assert not heirs


def losses(trial: TrialRecord) -> list[float | None]:
    return [one.val_loss for one in trial.curve]
