"""The cache of the forests that are fitted to the learning curves of recorded tables."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nbt.cache import MODELS, touch
from nbt.errors import NbtError
from nbt.files import atomic_file
from nbt.paths import cache_folder
from nbt.tuning import target
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.pruners import curve_forecast, quantile_forest
from nbt.tuning.pruners.curve_forecast import CurveForecaster
from nbt.tuning.pruners.quantile_forest import QuantileForest
from nbt.tuning.space import encoding
from nbt.tuning.surrogate import experience_model, gaussian_process, kernel, logit_score, task_similarity

_log = logging.getLogger("nbt")

_MODULES = (
    *(curve_forecast, quantile_forest, encoding, experience_model, gaussian_process, kernel),
    *(logit_score, target, task_similarity),
)
_LIBRARIES = ("numpy", "scipy", "scikit-learn")
_FORESTS = ("by_difference", "by_gain")
_LEVEL = "level"


class ModelCache:
    """The file of the forecaster of some tables; it does not exist before the first `write`.

    Another file belongs to other tables, to other versions of nbt and of the libraries, and to a process that has
    registered other techniques. A file that cannot be read or written counts as missing: the forecaster is fitted
    again.

    Args:
        tables: Recorded tables that were loaded from files.

    Raises:
        OSError: The file of a table has disappeared.
    """

    def __init__(self, tables: Sequence[RecordedTable]) -> None:
        self._tables = tables
        digest = hashlib.sha256(" ".join(map(version, _LIBRARIES)).encode())
        digest.update(" ".join(encoding.coordinate_names()).encode())
        for path in [*(str(module.__file__) for module in _MODULES), *(table.source for table in tables)]:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        self._name = f"{digest.hexdigest()[:24]}.npz"

    def read(self) -> CurveForecaster | None:
        """Returns the forecaster; None if there is no intact file."""
        try:
            path = cache_folder(MODELS) / self._name
            with np.load(path, allow_pickle=False) as arrays:
                forecaster = _read_forecaster(arrays)
        except Exception as error:  # NumPy and the archive have an error of their own for every kind of damage
            _log.debug("the forests of the learning curves are fitted again: %s", error)
            return None
        touch(path)
        return forecaster

    def write(self, forecaster: CurveForecaster) -> None:
        """Writes the forecaster atomically; a failure is logged."""
        arrays: dict[str, NDArray[np.generic]] = {_LEVEL: np.array(forecaster.level)}
        for forest in _FORESTS:
            found = getattr(forecaster, forest).to_arrays()
            arrays |= {f"{forest}.{name}": array for name, array in found.items()}
        try:
            with atomic_file(cache_folder(MODELS) / self._name) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except (NbtError, OSError) as error:
            _log.info("the forests of the learning curves are not cached: %s", error)


def _read_forecaster(arrays: np.lib.npyio.NpzFile) -> CurveForecaster:
    def forest(prefix: str) -> QuantileForest:
        names = [name for name in arrays if name.startswith(f"{prefix}.")]
        return QuantileForest.from_arrays({name.removeprefix(f"{prefix}."): arrays[name] for name in names})

    return CurveForecaster(**{name: forest(name) for name in _FORESTS}, level=float(arrays[_LEVEL]))
