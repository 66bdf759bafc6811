"""The checks of a dataset alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbt.checks import CheckResult
from nbt.option import split_codes
from nbt.progress import Progress

DEFAULT_IMAGE_SIZE = 224
"""Image size of the checks of a dataset without an own one: that of most backbones."""


@dataclass(frozen=True)
class CheckedDataset:
    """What was read of a dataset, and the results of its checks.

    Attributes:
        images: Number of images.
        classes: Class names in the order of the labels.
        parts: Number of images of each part, "training", "validation" and "test".
        official: Parts of `parts` that the dataset gives; the others were drawn.
        checks: Results of the checks, failed ones first.
    """

    images: int
    classes: tuple[str, ...]
    parts: Mapping[str, int]
    official: tuple[str, ...]
    checks: tuple[CheckResult, ...]


def check(dataset: str | Path, **options: Any) -> tuple[CheckResult, ...]:
    """Checks the data of a dataset, without PyTorch and without weights; see `check_dataset`.

    Returns:
        The results, failed ones first.
    """
    return check_dataset(dataset, **options).checks


def check_dataset(
    dataset: str | Path,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    resize: str = "crop",
    ignore: str | None = None,
    progress: Progress | None = None,
) -> CheckedDataset:
    """Reads and checks the data of a dataset, without PyTorch and without weights.

    Args:
        dataset: As in `load_task`.
        data_dir: Location of a dataset known by name.
        image_size: Height and width in pixels of the search that is planned; that of the dataset, else 224, when None.
        classes: Number of classes, of which the first are used; all when None.
        resize: How images become square: "crop", "pad" or "squash".
        ignore: Codes of checks that are left out, with commas between them.
        progress: Called as progress(description, done, total) while files are downloaded and decoded.

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
    data = decode_selection(select_images(options, progress), options, size, progress, ignore=codes)
    parts = {"training": data.split.train, "validation": data.split.val, "test": data.split.test}
    roles = set(data.listing.roles.tolist())
    return CheckedDataset(
        images=len(data.listing),
        classes=data.listing.class_names,
        parts={name: len(part) for name, part in parts.items()},
        official=tuple(name for role, name in zip(("train", "val", "test"), parts, strict=True) if role in roles),
        checks=data.checks,
    )
