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
    file, new = tmp_path / "mlflow.db", tmp_path / "mlflow.db.new"
    uri = f"sqlite:///{file}"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, uri])
    while not (new.exists() and new.stat().st_size):
        assert process.poll() is None and not (file.exists() and file.stat().st_size)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not file.exists() or not file.stat().st_size
    assert new.exists()

    open_store(uri, OWNER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    assert tables(file) > 20


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
