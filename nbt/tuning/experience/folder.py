"""A folder of recorded tables: the experience that priors and pruner of a search rest on."""

from __future__ import annotations

import logging
from pathlib import Path

from nbt.errors import UsageError
from nbt.paths import bundled_folder
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.space import Space

_log = logging.getLogger("nbt")


def load_experience(folder: str | Path | None, space: Space) -> list[RecordedTable]:
    """Reads the recorded tables of a folder, in the order of their names; an empty folder has none.

    Args:
        folder: Of `*.parquet` files, not searched deeper; None means the tables that come with nbt, of which those
            that are not of the space are left out.
        space: What is going to be searched. A dimension that a table does not have is neutral in all its runs.

    Raises:
        UsageError: There is no such folder, or a table of the user's is broken, of another version, has other columns
            or is of another space; the message names the file, the difference and the remedy.
    """
    if folder is None:
        return _load_shipped(space)
    tables = []
    for path in _table_files(Path(folder)):
        try:
            table = RecordedTable.load(path)
            table.check_space(space)
        except UsageError as error:
            raise UsageError(f"--experience {folder}: {error}; move the file elsewhere or record it again") from error
        tables.append(table)
    return tables


def _load_shipped(space: Space) -> list[RecordedTable]:
    tables = []
    for path in _table_files(bundled_folder("studies") / "recorded"):
        table = RecordedTable.load(path)
        try:
            table.check_space(space)
        except UsageError as error:
            _log.info("left out of the experience: %s", error)
        else:
            tables.append(table)
    return tables


def _table_files(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--experience {folder}: {reason}; give a folder of tables that nbt record wrote") from error
    return [path for path in paths if path.suffix == ".parquet" and not path.name.startswith(".")]
