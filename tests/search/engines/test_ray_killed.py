"""A real study by the command line whose worker is killed, and whose driver is killed twice, and what becomes of it."""

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
from nbt.search.records import StudyRecord, TrialRecord
from nbt.search.storage import read_study, resolve_storage
from tests.search.engines.local_ray import quiet
from tests.search.engines.processes import PATIENCE, processes_with, runs, wait_for

pytestmark = pytest.mark.slow

LENGTH, BUDGET = 24, 7
WORDS = [
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
        quiet()
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

    def start(self, engine: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "tests.search.engines.quick_study", str(self.workers)]
        driver = subprocess.Popen(
            [*words, *WORDS, "--engine", engine],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(driver)
        return driver

    def close(self) -> None:
        for driver in self._started:
            driver.kill()
            driver.communicate()

    def read(self) -> StudyRecord | None:
        try:
            return read_study(resolve_storage(None, self.folder), "s")
        except NbtError:
            return None

    def worker_pids(self) -> list[int]:
        return [int(path.name) for path in self.workers.iterdir() if runs(int(path.name))]


@pytest.fixture
def drivers(tmp_path: Path, ray_folder: Path) -> Iterator[Drivers]:
    drivers = Drivers(tmp_path, ray_folder)
    yield drivers
    drivers.close()


def running(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.state == "running"]


def finished(record: StudyRecord) -> dict[int, Any]:
    return {
        trial.number: (trial.settings, trial.finished, losses(trial))
        for trial in record.trials
        if trial.state == "complete"
    }


def test_a_study_outlives_its_worker_and_its_drivers(drivers: Drivers, ray_folder: Path) -> None:
    """Killed while trials run, twice; the second time after a worker; the local engine does the rest."""

    def has_come_to(complete: int) -> bool:
        record = drivers.read()
        if driver.poll() is not None or record is None or len(finished(record)) < complete:
            return driver.poll() is not None
        return len(running(record)) == 2 and all(len(trial.curve) >= 3 for trial in running(record))

    driver = drivers.start("ray")
    assert wait_for(lambda: has_come_to(2))
    driver.kill()
    _, err = driver.communicate(timeout=PATIENCE)
    assert wait_for(lambda: not processes_with(str(ray_folder))), "something of the killed driver's Ray is left"
    first = drivers.read()
    assert first is not None and running(first), err

    driver = drivers.start("ray")
    assert wait_for(lambda: drivers.worker_pids() != [] and has_come_to(2))
    os.kill(drivers.worker_pids()[0], signal.SIGKILL)
    assert wait_for(lambda: has_come_to(4))
    driver.kill()
    _, err = driver.communicate(timeout=PATIENCE)
    assert "worker process died; running it again" in err
    second = drivers.read()
    assert second is not None and running(second), err

    driver = drivers.start("local")
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    last = drivers.read()
    assert last is not None
    assert json.loads(out)["trials"]["complete"] == last.counts()["complete"] >= 5
    assert last.epochs_budget is not None and last.epochs_budget - LENGTH < last.epochs_spent <= last.epochs_budget
    assert not running(last)
    for earlier in (first, second):
        assert finished(earlier).items() <= finished(last).items(), "a finished trial was lost or changed"
    check_what_was_continued(last, drivers.folder)
    assert wait_for(lambda: not processes_with(str(ray_folder)))
    assert not [path.name for path in drivers.temporary.iterdir() if path.name.startswith("nbt-")]


def check_what_was_continued(record: StudyRecord, folder: Path) -> None:
    """Each killed trial went on as another one, from a checkpoint at most an epoch old."""
    study = optuna.load_study(study_name="s", storage=resolve_storage(None, folder))
    trained = {trial.number: trial.user_attrs["progress"]["trained"] for trial in study.trials}
    killed = [trial for trial in record.trials if trial.state == "failed"]
    assert 2 <= len(killed) <= 4
    assert {trial.reason.partition(":")[0] for trial in killed} == {"interrupted"}
    heirs = {trial.facts["continues"]: trial for trial in record.trials if "continues" in trial.facts}
    for trial in killed:
        heir = heirs.pop(trial.number)
        known = len(heir.curve) - trained[heir.number]
        assert known >= len(trial.curve) - 1
        common = min(known, len(trial.curve))
        assert losses(heir)[:common] == losses(trial)[:common]
        assert heir.state == "failed" or [one.epoch for one in heir.curve] == list(range(1, LENGTH + 1))
    assert not heirs
    assert max(len(trial.curve) for trial in killed) >= 3


def losses(trial: TrialRecord) -> list[float | None]:
    return [one.val_loss for one in trial.curve]
