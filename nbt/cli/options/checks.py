"""Checks of what the user wrote that cost nothing: wrong input is answered before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError

if TYPE_CHECKING:
    from nbt.task.options import TaskOptions

TASK_OPTIONS = ("dataset", "data_dir", "backbone", "weights", "image_size", "classes", "shots", "seed")


def check_task(options: Mapping[str, Any]) -> TaskOptions:
    """Checks the values of `nbt.cli.options.common.task_options`, the seed, and the teacher where a command has one.

    Returns:
        What they mean, paths absolute.

    Raises:
        UsageError: One is wrong.
    """
    from nbt.task.options import check_task_options

    return check_task_options(**{name: options[name] for name in TASK_OPTIONS}, teacher=options.get("teacher"))


def check_study(name: str | None, storage: str | None) -> None:
    """Checks `--study` (or the argument STUDY) and `--storage`.

    Raises:
        UsageError: The name cannot be that of a folder, or the storage is no URL.
    """
    from nbt.tuning.storage.study_names import check_study_name

    if name is not None:
        check_study_name(name)
    if storage is not None and "://" not in storage:
        raise UsageError(f"--storage {storage}: not the URL of a database; for a file write sqlite:///{storage}")


def check_experience(folder: str | None) -> None:
    """Checks `--experience`.

    Raises:
        UsageError: There is no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"--experience {folder}: no such folder; expected one of tables that nbt record wrote")
