"""Opening MLflow stores: a new SQLite file appears at once, with all its tables."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nbt.tracking import client
from nbt.tracking.client import open_store
from nbt.tracking.run_store import RunOwner

OWNER = RunOwner(id="one", key="study", experiment="birds")
SCRIPT = (
    "import sys; from nbt.tracking.client import open_store; from nbt.tracking.run_store import RunOwner; "
    "open_store(sys.argv[1], RunOwner(id='one', key='study', experiment='birds'))"
)


@pytest.fixture(autouse=True)
def no_template(create_tracking_file: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_create_sqlite_file", create_tracking_file)


def tables(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return len(connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall())


def test_a_process_that_is_killed_while_it_creates_the_tables_leaves_no_unusable_file(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    uri = f"sqlite:///{file}"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, uri])
    while not any(path.stat().st_size for path in tmp_path.glob("mlflow.db.creating-*")):
        assert process.poll() is None and not (file.exists() and file.stat().st_size)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not file.exists() or not file.stat().st_size
    assert list(tmp_path.glob("mlflow.db.creating-*"))

    open_store(uri, OWNER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    assert tables(file) > 20


def test_a_failed_creation_is_repeated_in_the_same_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    file, initialise = tmp_path / "mlflow.db", utils._initialize_tables

    def fail_half_way(engine: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE experiments (name TEXT)")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(utils, "_initialize_tables", fail_half_way)
        open_store(f"sqlite:///{file}", OWNER)
    assert utils._initialize_tables is initialise
    open_store(f"sqlite:///{file}", OWNER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_uri_may_have_a_query(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=60", OWNER)
    assert tables(tmp_path / "mlflow.db") > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_file_that_exists_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    open_store(f"sqlite:///{file}", OWNER)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE mine (value INTEGER)")
    count = tables(file)
    open_store(f"sqlite:///{file}", OWNER)
    assert tables(file) == count


def test_the_default_experiment_is_that_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    locations = []
    for name, opened in (("ours", True), ("theirs", False)):
        uri = f"sqlite:///{tmp_path / name}.db"
        if opened:
            open_store(uri, OWNER)
        locations.append(MlflowClient(tracking_uri=uri).get_experiment("0").artifact_location)
    assert locations[0] == locations[1]
