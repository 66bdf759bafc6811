"""Loading of the recorded tables of a folder: the experience for priors and pruner of a search."""

from __future__ import annotations

import logging
from pathlib import Path

from nbt.errors import UsageError
from nbt.paths import bundled_folder
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.space import Space

_log = logging.getLogger("nbt")

# Folder of the shipped tables of recipes near the default one, beside those of random settings.
_RACE = "race"


def load_experience(folder: str | Path | None, space: Space) -> list[RecordedTable]:
    """Loads the recorded tables of a folder, sorted by file name; of the shipped ones, random settings come first.

    Args:
        folder: Folder of `*.parquet` files, without subfolders; None loads the tables shipped with nbt, without those
            that do not match the space.
        space: The search space. A dimension that a table lacks is neutral in all its runs.

    Raises:
        UsageError: The folder cannot be read, or one of its tables is damaged, has another version or other columns,
            or does not match the space. The message names the file, the difference and the remedy.
    """
    if folder is None:
        return _load_shipped(space)
    tables = []
    for path in _table_files(Path(folder)):
        try:
            table = RecordedTable.load(path)
            table.check_space(space)
        except UsageError as error:
            raise UsageError(
                f"--experience {folder}: {error}; move the file to another folder or record the table again"
            ) from error
        tables.append(table)
    return tables


def _load_shipped(space: Space) -> list[RecordedTable]:
    recorded = bundled_folder("studies") / "recorded"
    tables = []
    for path in [*_table_files(recorded), *_table_files(recorded / _RACE)]:
        table = RecordedTable.load(path)
        try:
            table.check_space(space)
        except UsageError as error:
            _log.info("not used as experience: %s", error)
        else:
            tables.append(table)
    return tables


def _table_files(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--experience {folder}: {reason}; give a folder of tables written by nbt record") from error
    return [path for path in paths if path.suffix == ".parquet" and not path.name.startswith(".")]
