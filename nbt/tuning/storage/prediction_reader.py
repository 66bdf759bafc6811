"""Predictions of a study's runs, read from the database when they are first used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

from nbt.training.metrics import Predictions
from nbt.tuning.storage.database import engine_to_read
from nbt.tuning.storage.outage import OutageRetry
from nbt.tuning.storage.trial_tables import read_bytes

_log = logging.getLogger("nbt")


class PredictionReader:
    """Reads predictions by the key of their run and keeps the last ones, of large datasets not those of all runs.

    Args:
        url: URL of the storage.
        study: Name of the study.
    """

    def __init__(self, url: str, study: str) -> None:
        self._url, self._study = url, study
        self._cached: Callable[[str], Predictions | None] = lru_cache(maxsize=8)(self._read)

    def __call__(self, run: str) -> Predictions | None:
        """Returns the predictions of a run; None if there are none, or they are damaged, which is logged.

        Raises:
            NbtError: The database cannot be used.
        """
        return self._cached(run)

    def _read(self, run: str) -> Predictions | None:
        try:
            content = OutageRetry(self._url).run(lambda: self._read_bytes(run))
            return None if content is None else Predictions.from_bytes(content)
        except ValueError as error:
            _log.warning("run %s: %s; they are ignored", run, error)
            return None

    def _read_bytes(self, run: str) -> bytes | None:
        engine = engine_to_read(self._url)
        return None if engine is None else read_bytes(engine, self._study, run)
