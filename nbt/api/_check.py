"""The checks of a dataset alone."""

from __future__ import annotations

from pathlib import Path

from nbt.checks import CheckResult
from nbt.progress import Progress
from nbt.search_config import split_codes

DEFAULT_IMAGE_SIZE = 224
"""Image size of the checks of a dataset without an own one: that of most backbones."""


def check(
    dataset: str | Path,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    resize: str = "crop",
    ignore: str | None = None,
    progress: Progress | None = None,
) -> tuple[CheckResult, ...]:
    """Checks the data of a dataset, without PyTorch and without weights.

    Args:
        dataset: As in `load_task`.
        data_dir: Location of a dataset known by name.
        image_size: Height and width in pixels of the search that is planned; that of the dataset, else 224, when None.
        classes: Number of classes, of which the first are used; all when None.
        resize: How images become square: "crop", "pad" or "squash".
        ignore: Codes of checks that are left out, with commas between them.
        progress: Called as progress(description, done, total) while files are downloaded and decoded.

    Returns:
        The results, failed ones first.

    Raises:
        UsageError: An option is wrong, or the data are no dataset: fewer than two classes, or folders that may be
            splits or classes.
        NbtError: The dataset cannot be downloaded, or the cache cannot be written.
    """
    from nbt.report.study.checks.registry import check_ignored
    from nbt.task.options import check_task_options

    codes = check_ignored(",".join(split_codes(ignore)))
    options = check_task_options(dataset, data_dir=data_dir, image_size=image_size, classes=classes, resize=resize)
    from nbt.task.data import decode_selection, select_images

    size = image_size or options.source.spec.image_size or DEFAULT_IMAGE_SIZE
    return decode_selection(select_images(options, progress), options, size, progress, ignore=codes).checks
