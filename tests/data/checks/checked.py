"""The data that the checks are tested on: small generated datasets, read as by every command."""

from __future__ import annotations

from pathlib import Path

from nbt.checks import CheckResult
from nbt.data.checks.registry import DATA_CHECKS
from nbt.task.data import decode_selection, select_images
from nbt.task.options import check_task_options


def check_results(dataset: Path | str, size: int = 16, resize: str = "crop") -> dict[str, CheckResult]:
    """Returns the results of all checks of a dataset by code."""
    options = check_task_options(dataset, image_size=size, resize=resize)
    results = decode_selection(select_images(options, None), options, size, None).checks
    assert sorted(result.code for result in results) == [check.code for check in DATA_CHECKS]
    return {result.code: result for result in results}


def failed_codes(dataset: Path | str, size: int = 16, resize: str = "crop") -> set[str]:
    """Returns the codes of the checks that fail, without NBT102 to NBT104: generated images are alike."""
    failed = {code for code, result in check_results(dataset, size, resize).items() if result.is_failed}
    return failed - {"NBT102", "NBT103", "NBT104"}
