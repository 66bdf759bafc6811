"""Fixtures of all tests: a private cache, one thread, and the optional real data."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.browser import axe, browser  # noqa: F401 - fixtures

# On a busy machine any example may be slow, so there is no deadline.
hypothesis_settings.register_profile(
    "nbt", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("nbt")

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A test run in the background ignores Ctrl-C, as do its child processes; the tests of Ctrl-C need the default handler.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets a cache folder outside the user's cache; one per test process, so that digits are decoded once."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["NBT_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Undoes what a command did to the logger, so that later tests see its messages."""
    log = logging.getLogger("nbt")
    before = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """Makes `workers="auto"` choose one worker, which runs in the test process; tests of workers give a number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbt.tuning.engines.worker_count.usable_cores", lambda: 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def create_tracking_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """Copies a database with MLflow's tables for every new SQLite file of tracking: MLflow needs seconds for each.

    Returns the function that creates such a file.
    """
    from nbt.tracking import client

    create, template = client._create_sqlite_file, tmp_path_factory.mktemp("tracking") / "mlflow.db"

    def copy_template(file: Path) -> None:
        if not template.exists():
            create(template)
        shutil.copy(template, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_create_sqlite_file", copy_template)
        yield create


@pytest.fixture(scope="session")
def shared() -> Path:
    """Returns the folder of real images and weights next to the checkout; its tests are skipped if it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real images and weights in ../shared, which this machine lacks")
    return folder
