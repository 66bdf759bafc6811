"""Studies on a PostgreSQL server. The tests need an empty database and are skipped without one:

NBT_TEST_POSTGRESQL=postgresql+psycopg://USER:PASSWORD@HOST/DATABASE
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nbt.errors import NbtError
from nbt.tuning.storage.studies import list_studies, read_study
from nbt.tuning.storage.study_store import StudyStore
from tests.tuning.fakes import (
    EPOCHS,
    DriverKilled,
    FakeEngine,
    fake_predictions,
    make_controller,
    open_fake_study,
    states,
)

URL = os.environ.get("NBT_TEST_POSTGRESQL", "")
pytestmark = pytest.mark.skipif(not URL, reason="needs a PostgreSQL server, given by NBT_TEST_POSTGRESQL")

HOLD = """
import sys
from pathlib import Path
from tests.tuning.fakes import open_fake_study
open_fake_study(Path("."), url=sys.argv[1], name=sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"test-{os.getpid()}-{tmp_path.name}"


def search(store: StudyStore, folder: Path, engine: FakeEngine) -> None:
    controller = make_controller(store, "4", checkpoints=folder)
    try:
        engine.run(controller)
    finally:
        controller.close()


def test_a_killed_search_is_resumed(tmp_path: Path, name: str) -> None:
    store = open_fake_study(tmp_path, "4", url=URL, name=name)
    with pytest.raises(DriverKilled):
        search(store, tmp_path, FakeEngine(kill_after=EPOCHS + 1))
    store.close()
    with open_fake_study(tmp_path, "4", url=URL, name=name) as store:
        search(store, tmp_path, FakeEngine())
        record = store.record()
    assert record == read_study(URL, name)
    assert record.epochs_spent == 4 * EPOCHS
    assert "running" not in states(record.trials)
    assert states(record.trials).count("complete") == 4
    assert name in [study.name for study in list_studies(URL)]


def test_the_second_driver_is_refused_until_the_first_is_killed(tmp_path: Path, name: str) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", HOLD, URL, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        with pytest.raises(NbtError, match=f"process {driver.pid}") as caught:
            open_fake_study(tmp_path, url=URL, name=name)
        assert URL not in str(caught.value)
    finally:
        driver.kill()
        driver.communicate()
    open_fake_study(tmp_path, url=URL, name=name).close()


def test_predictions_of_more_than_64_kb_are_stored(tmp_path: Path, name: str) -> None:
    predictions = fake_predictions(0.7, 2000, classes=100)
    assert len(predictions.to_bytes()) > 2**16
    with open_fake_study(tmp_path, url=URL, name=name) as store:
        store.put_predictions("test:a", predictions)
    stored = read_study(URL, name).load_predictions("test:a")
    assert stored is not None
    np.testing.assert_allclose(stored.log_probabilities, predictions.log_probabilities, rtol=1e-6)
