"""Checks of option values that import neither torch nor Optuna, so that wrong input is reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError

if TYPE_CHECKING:
    from nbt.task.options import TaskOptions

TASK_OPTIONS = ("dataset", "data_dir", "backbone", "weights", "image_size", "classes", "shots", "seed")


def check_task(options: Mapping[str, Any]) -> TaskOptions:
    """Checks the values of `nbt.cli.options.common.task_options`, the seed, and what else of a task the command has.

    Returns:
        The checked options; paths are absolute.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.task.options import check_task_options

    values = {name: options[name] for name in TASK_OPTIONS}
    others = {name: options[name] for name in ("teacher", "resize", "source_data") if name in options}
    return check_task_options(**values, **others)


def check_study(name: str | None, storage: str | None) -> None:
    """Checks `--study` (or the argument STUDY) and `--storage`.

    Raises:
        UsageError: The name is not a valid folder name, or the storage is not a URL.
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
    if folder is None or Path(folder).is_dir():
        return
    if Path(folder).exists():
        raise UsageError(f"--experience {folder}: not a folder; give the folder of the recorded tables")
    raise UsageError(f"--experience {folder}: no such folder; expected a folder of tables written by nbt record")


def pair_backbones_with_weights(backbones: Sequence[str], weights: Sequence[str]) -> list[tuple[str | None, str]]:
    """Returns each backbone with its weights.

    Args:
        backbones: Architectures; empty for the dataset's backbone, which is returned as None.
        weights: None ("default"), one for all backbones, or one per backbone in the same order.

    Raises:
        UsageError: The number of weights does not match the number of backbones.
    """
    names: Sequence[str | None] = backbones or [None]
    files = list(weights) or ["default"]
    if len(files) == 1:
        files *= len(names)
    if len(files) != len(names):
        raise UsageError(
            f"--weights is given {len(files)} times for {len(names)} --backbone: give it once for all, or once for each"
        )
    return list(zip(names, files, strict=True))
