"""Predictions of a study's runs, read from the database when they are first used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from nbt.training.metrics import Predictions
from nbt.tuning.storage.database import close, connect_to_read, convert_errors
from nbt.tuning.storage.trial_tables import read_bytes

_log = logging.getLogger("nbt")


class PredictionReader:
    """Reads predictions by the key of their run and keeps them.

    Args:
        url: URL of the storage.
        study: Name of the study.
    """

    def __init__(self, url: str, study: str) -> None:
        self._url, self._study = url, study
        self._cached: Callable[[str], Predictions | None] = cache(self._read)

    def __call__(self, run: str) -> Predictions | None:
        """Returns the predictions of a run; None if there are none, or they are damaged, which is logged.

        Raises:
            NbtError: The database cannot be used.
        """
        return self._cached(run)

    def _read(self, run: str) -> Predictions | None:
        storage = connect_to_read(self._url)
        if storage is None:
            return None
        try:
            with convert_errors(self._url):
                content = read_bytes(storage.engine, self._study, run)
            return None if content is None else Predictions.from_bytes(content)
        except ValueError as error:
            _log.warning("run %s: %s; they are ignored", run, error)
            return None
        finally:
            close(storage)
