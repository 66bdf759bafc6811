"""Outages of a database on a server are waited for; what was written before the answer was lost is written once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from nbt.errors import NbtError
from nbt.tuning.storage import outage
from nbt.tuning.storage.outage import OUTAGE_SECONDS, OutageRetry
from nbt.tuning.storage.studies import read_study, resolve_storage
from nbt.tuning.storage.study_store import StudyStore
from tests.tuning.fakes import run_search, states, writer

SERVER = "postgresql://user:secret@host/studies"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only in `time.sleep`."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(outage.time, "sleep", sleep)
    return now


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [times]

    def operation() -> str:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return "done"

    return operation


def connection_error() -> Exception:
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("connection refused"))


def test_an_operation_is_repeated_until_the_server_answers(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    retry = OutageRetry(SERVER)
    with caplog.at_level(logging.WARNING, logger="nbt"):
        assert retry.run(failing(5, connection_error())) == "done"
        assert retry.run(failing(0, connection_error())) == "done"
    assert clock[0] == 5.0
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "postgresql://user:***@host/studies: connection refused; waiting up to 60 s for the database"
    assert second == "the database can be reached again; nothing was lost"


def test_a_long_outage_is_an_error(clock: list[float]) -> None:
    with pytest.raises(NbtError, match="connection refused"):
        OutageRetry(SERVER).run(failing(1000, connection_error()))
    assert OUTAGE_SECONDS <= clock[0] <= OUTAGE_SECONDS + 2


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("sqlite:///studies.db", connection_error()),
        (SERVER, sqlalchemy.exc.IntegrityError("INSERT", {}, Exception("unique constraint"))),
    ],
)
def test_other_errors_are_not_repeated(url: str, error: Exception, clock: list[float]) -> None:
    with pytest.raises(NbtError):
        OutageRetry(url).run(failing(1, error))
    assert clock[0] == 0.0


def test_a_search_whose_commits_are_lost_stores_every_trial_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fourth commit is carried out or not, and its connection is lost before the answer."""
    undisturbed = run_search(tmp_path / "undisturbed", "6")
    monkeypatch.setattr(outage, "sqlite_file", lambda url: None)  # the retries are those of a server
    monkeypatch.setattr(outage, "_RETRY_SECONDS", 0.0)
    lost: list[bool] = []
    opened = StudyStore.__init__

    def open_store(self: StudyStore, *arguments: object, **options: object) -> None:
        opened(self, *arguments, **options)  # type: ignore[arg-type]
        if self._writer is not None and not lost:
            lost.append(False)
            lose_commits(writer(self)._storage.engine, lost)

    monkeypatch.setattr(StudyStore, "__init__", open_store)
    record = run_search(tmp_path, "6")
    assert {True, False} <= set(lost[1:])
    assert states(record.trials) == states(undisturbed.trials)
    assert [trial.curve for trial in record.trials] == [trial.curve for trial in undisturbed.trials]
    stored = read_study(resolve_storage(None, tmp_path), record.config.name)
    assert [trial.settings for trial in stored.trials] == [trial.settings for trial in undisturbed.trials]
    assert stored.epochs_spent == undisturbed.epochs_spent


def lose_commits(engine: sqlalchemy.Engine, lost: list[bool]) -> None:
    """Raises the error of a lost connection before or after every fourth commit; notes whether it was carried out."""
    commit, count = engine.dialect.do_commit, [0]

    def losing(connection: sqlite3.Connection) -> None:
        count[0] += 1
        if count[0] % 8 == 4:
            lost.append(False)
            raise sqlite3.OperationalError("connection lost")
        commit(connection)
        if count[0] % 8 == 0:
            lost.append(True)
            raise sqlite3.OperationalError("connection lost")

    engine.dialect.do_commit = losing  # type: ignore[method-assign]
