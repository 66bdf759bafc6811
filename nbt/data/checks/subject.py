"""CheckedData: what the checks of the data look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbt.data.image_store import ImageStore
from nbt.data.listing import Listing, relative_names
from nbt.data.near_copies.cache import cached_near_copies
from nbt.data.near_copies.search import NearCopies
from nbt.data.splits import Index, Split


@dataclass(frozen=True, eq=False, kw_only=True)
class CheckedData:
    """The data of a task, after decoding.

    Attributes:
        listing: The images of the task that could be decoded, in the order of `images`, with their labels and official
            splits, and how their folder was read (`listing.layout`).
        images: The decoded images, with facts about their files and the names of those that could not be decoded.
        split: Indices of the training, validation and test images.
        resize: How images became square, see `nbt.data.decoding.RESIZE`.
        test_is_official: Whether the test images are those of the dataset, and not drawn from it.
        untrained: Number of images by class that has no image to train on and was left out.
        dataset: The dataset as the user named it.
    """

    listing: Listing
    images: ImageStore
    split: Split
    resize: str = "crop"
    test_is_official: bool = False
    untrained: Mapping[str, int] = field(default_factory=dict)
    dataset: str = ""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.listing.class_names

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices, int64 (N,)."""
        return self.listing.labels

    @property
    def paths(self) -> list[Path] | None:
        """The image files in order; None for images that are in memory."""
        return None if isinstance(self.listing.items, np.ndarray) else list(self.listing.items)

    @property
    def parts(self) -> dict[str, Index]:
        """Indices of the images by name of the part, int64 (n,) each."""
        return {"training": self.split.train, "validation": self.split.val, "test": self.split.test}

    @cached_property
    def names(self) -> list[str]:
        """Names of the images for messages: paths relative to their common folder, or numbers."""
        paths = self.paths
        return [f"image {i}" for i in range(len(self.listing))] if paths is None else relative_names(paths)

    @cached_property
    def near_copies(self) -> NearCopies:
        """The images that are near copies of each other."""
        return cached_near_copies(self.images.array, self.dataset)

    def file_name(self, path: Path) -> str:
        """Returns the name of a file or folder for messages: relative to the folder of the dataset where it has one."""
        layout = self.listing.layout
        return str(path) if layout is None else layout.name(path)

    def class_counts(self, index: Index) -> npt.NDArray[np.int64]:
        """Returns the number of images per class among those given by their indices, int64 (C,)."""
        return np.bincount(self.labels[index], minlength=len(self.class_names))
