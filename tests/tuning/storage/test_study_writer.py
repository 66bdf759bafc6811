"""Trials are written in batches; the database and the memory agree, and a kill loses only what is documented."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from nbt.errors import NbtError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.controller import SearchController
from nbt.tuning.storage import database
from nbt.tuning.storage.studies import read_study, resolve_storage
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.storage.study_writer import FLUSH_SECONDS
from tests.tuning.fakes import EPOCHS, kill, make_controller, open_fake_study, run_search, states, writer

NEVER = 1000.0


def start(store: StudyStore, trials: int, budget: str = "100") -> tuple[SearchController, list[TrialSpec]]:
    controller = make_controller(store, budget)
    specs = [controller.next_trial() for _ in range(trials)]
    return controller, [spec for spec in specs if spec is not None]


def epoch(number: int) -> EpochResult:
    return EpochResult(number, 2.0, 1.0, 0.1 * number, 0.5)


def count_commits(store: StudyStore) -> list[object]:
    commits: list[object] = []
    sqlalchemy.event.listen(writer(store)._storage.engine, "commit", commits.append)
    return commits


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestBatches:
    def test_the_epochs_of_concurrent_trials_are_one_transaction(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, flush_seconds=NEVER) as store:
            controller, specs = start(store, 20)
            writer(store).flush()
            commits = count_commits(store)
            for number in range(1, 4):
                for spec in specs:
                    controller.on_epoch(spec, epoch(number))
            assert not commits
            writer(store).flush()
            assert len(commits) == 1
            record = read_study(resolve_storage(None, tmp_path), "fake")
            assert [trial.curve for trial in record.trials] == [(epoch(1), epoch(2), epoch(3))] * 20
            assert record == store.record()
            commits.clear()
            writer(store).flush()
            assert not commits

    def test_a_timer_writes_them(self, tmp_path: Path) -> None:
        assert FLUSH_SECONDS <= 1
        with open_fake_study(tmp_path, flush_seconds=0.01) as store:
            controller, [spec] = start(store, 1)
            controller.on_epoch(spec, epoch(1))
            url = resolve_storage(None, tmp_path)
            wait_until(lambda: [trial.curve for trial in read_study(url, "fake").trials] == [(epoch(1),)])

    def test_the_end_of_a_trial_is_stored_at_once_and_without_the_others(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, "2", flush_seconds=NEVER) as store:
            controller, specs = start(store, 2, "2")
            for number in range(1, EPOCHS + 1):
                for spec in specs:
                    controller.on_epoch(spec, epoch(number))
            curve = tuple(epoch(number) for number in range(1, EPOCHS + 1))
            controller.on_done(specs[0], TrialOutcome(curve=curve))
            [stored] = read_study(resolve_storage(None, tmp_path), "fake").trials
            assert (stored.state, stored.curve) == ("complete", curve)
            assert stored == store.record().trials[0]
            controller.close()
        assert states(read_study(resolve_storage(None, tmp_path), "fake").trials) == ["complete", "failed"]

    def test_repeated_epochs_replace_the_stored_ones(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path) as store:
            controller, [spec] = start(store, 1)
            for number in (1, 2, 3):
                controller.on_epoch(spec, epoch(number))
            restarted = EpochResult(2, 3.0, 2.0, 0.7, 0.5)
            controller.on_epoch(spec, restarted)
            [stored] = read_study(resolve_storage(None, tmp_path), "fake").trials
        assert stored.curve == (epoch(1), restarted, epoch(3))
        assert stored.epochs_spent == 3

    def test_epochs_without_finite_losses(self, tmp_path: Path) -> None:
        result = EpochResult(1, float("inf"), None, None, 0.5, diverged=True)
        with open_fake_study(tmp_path) as store:
            controller, [spec] = start(store, 1)
            controller.on_epoch(spec, result)
            assert read_study(resolve_storage(None, tmp_path), "fake").trials[0].curve == (result,)


class TestFaults:
    def test_an_error_of_the_timer_ends_the_search_and_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "_BUSY_TIMEOUT_SECONDS", 0.01)
        with open_fake_study(tmp_path, flush_seconds=0.01) as store:
            controller, [spec] = start(store, 1)
            writer(store).flush()
            other = sqlite3.connect(tmp_path / ".nbt" / "studies.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            controller.on_epoch(spec, epoch(1))
            wait_until(lambda: writer(store)._error is not None)
            with pytest.raises(NbtError, match="locked"):
                controller.on_epoch(spec, epoch(2))
            other.execute("COMMIT")
            other.close()
            controller.close()
        [trial] = read_study(resolve_storage(None, tmp_path), "fake").trials
        assert (trial.end, trial.curve) == ("interrupted", (epoch(1), epoch(2)))

    def test_a_kill_loses_only_what_is_not_written(self, tmp_path: Path) -> None:
        store = open_fake_study(tmp_path, "3", flush_seconds=NEVER)
        controller, [spec] = start(store, 1, "3")
        controller.on_epoch(spec, epoch(1))
        writer(store).flush()
        controller.on_epoch(spec, epoch(2))
        controller.next_trial()
        kill(store)
        [trial] = read_study(resolve_storage(None, tmp_path), "fake").trials
        assert (trial.end, trial.curve) == ("running", (epoch(1),))
        record = run_search(tmp_path, "3")
        assert [trial.end for trial in record.trials] == ["interrupted", "complete", "complete", "complete"]
        assert record.trials[1].facts["continues"] == 0
        assert record.epochs_spent == 3 * EPOCHS

    def test_a_process_that_is_killed_while_it_writes(self, tmp_path: Path) -> None:
        code = (
            "import pathlib, sys\n"
            "from tests.tuning.fakes import *\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "engine = FakeEngine(workers=4)\n"
            "epochs = engine.simulate\n"
            "engine.simulate = lambda spec: (print(spec.key, flush=True), epochs(spec))[1]\n"
            "run_search(folder, '500', engine)\n"
        )
        root = Path(__file__).resolve().parents[3]
        for _ in range(3):
            driver = subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
            )
            assert driver.stdout is not None
            for _ in range(9):  # it writes almost all of the time
                assert driver.stdout.readline()
            os.kill(driver.pid, signal.SIGKILL)
            driver.stdout.close()
            driver.wait()
        record = run_search(tmp_path, "60")
        assert "running" not in states(record.trials)
        assert [trial.number for trial in record.trials] == list(range(len(record.trials)))
        assert record.counts()["failed"] == 0
        for trial in record.trials:
            if trial.state == "complete":
                assert [result.epoch for result in trial.curve] == list(range(1, EPOCHS + 1))
        assert record == read_study(resolve_storage(None, tmp_path), "fake")
