"""The images of a study, read again from its dataset: names, labels, and thumbnails as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.data.checks.registry import DATA_CHECKS
from nbt.data.decoding import decode_file, resize_pixels
from nbt.data.listing import Listing, relative_names
from nbt.data.resolve import DatasetSource, resolve
from nbt.errors import NbtError, UsageError, one_line_message
from nbt.models.backbone_spec import parse_backbone
from nbt.paths import cache_folder
from nbt.task.data import decode_selection, select_images
from nbt.task.load import task_fingerprint
from nbt.task.options import TaskOptions
from nbt.tuning.storage.records import StudyRecord

_QUALITY = 72


@dataclass(frozen=True, eq=False)
class DatasetImages:
    """The images of a study, in the order of its task.

    Attributes:
        listing: The images.
        names: Their paths relative to their deepest common folder, or "image 17" for images in memory.
        resize: How they become square.
    """

    listing: Listing
    names: list[str]
    resize: str

    def thumbnails(self, indices: Iterable[int], size: int) -> dict[int, str]:
        """Returns small JPEG images as data URIs by index; images that cannot be decoded any more are left out.

        Args:
            indices: Indices of images.
            size: Height and width in pixels.
        """
        return {index: uri for index in indices if (uri := self._thumbnail(index, size)) is not None}

    def _thumbnail(self, index: int, size: int) -> str | None:
        from PIL import Image

        item = self.listing.items[index]
        try:
            if isinstance(item, np.ndarray):
                pixels = resize_pixels(item, size, self.resize)
            else:
                pixels = decode_file(item, size, self.resize)
        except Exception:  # files that were damaged since make Pillow raise errors of many types
            return None
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_dataset_images(record: StudyRecord) -> DatasetImages:
    """Lists the images of a study again, without a download; only the names of the files are read.

    Raises:
        NbtError: The dataset cannot be read any more, or has changed since the search.
    """
    config, resize = record.config, record.search_config().resize
    try:
        options = TaskOptions(
            source=_check_present(resolve(config.dataset, config.data_dir)),
            backbone=parse_backbone(config.backbone),
            weights=config.weights,
            data_dir=config.data_dir,
            image_size=config.image_size,
            classes=config.classes,
            shots=config.shots,
            seed=config.seed,
            resize=resize,
        )
        selection = select_images(options, None)
        listing = selection.listing
        if record.dataset.get("unreadable_images"):
            codes = [check.code for check in DATA_CHECKS]
            listing = decode_selection(selection, options, config.image_size, None, ignore=codes).listing
    except (NbtError, OSError) as error:
        raise NbtError(f"the dataset cannot be read any more: {one_line_message(error)}") from error
    if task_fingerprint(listing, config.image_size, options) != config.data_hash:
        raise NbtError(f"the dataset {options.source.dataset} has changed since the search")
    return DatasetImages(listing, _names(listing), resize)


def _check_present(source: DatasetSource) -> DatasetSource:
    """Returns the source itself.

    Raises:
        UsageError: It would have to be downloaded.
    """
    spec = source.spec
    if source.path is None and spec.marker and not (cache_folder("datasets", spec.name) / spec.marker).exists():
        raise UsageError(f"{spec.title} is not in the cache")
    return source


def _names(listing: Listing) -> list[str]:
    if isinstance(listing.items, np.ndarray):
        return [f"image {index}" for index in range(len(listing))]
    return relative_names(listing.items)


def evenly_spaced(indices: npt.NDArray[np.int64], count: int) -> list[int]:
    """Returns at most `count` of the indices, evenly spaced, so that they represent all of them."""
    positions = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [int(index) for index in indices[positions]]
