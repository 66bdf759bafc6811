"""SourceImages: what a source is pretrained on. Of a dataset, everything but its official test images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.data.image_store import decode_images
from nbt.data.listing import Listing
from nbt.data.readers.digits import read_digits
from nbt.data.registry import read_dataset
from nbt.data.resolve import DatasetSource
from nbt.errors import UsageError
from nbt.progress import Progress


@dataclass(frozen=True, eq=False)
class SourceImages:
    """Labelled images, decoded.

    Attributes:
        name: The dataset.
        class_names: One name a class, in the order of the labels.
        pixels: uint8 (N, H, H, 3).
        labels: int64 (N,), 0 ... C-1; every class has at least one image.
        digest: Hash of which images they are.
    """

    name: str
    class_names: tuple[str, ...]
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)


def load_source_images(
    source: DatasetSource,
    image_size: int,
    *,
    classes: int | Sequence[int] | None = None,
    shots: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SourceImages:
    """Returns the images of a dataset that a source may be trained on; of the embedded digits, 0-4.

    Args:
        source: The dataset; its official test images are left out.
        image_size: Height and width in pixels.
        classes: The first so many classes, or those of these numbers; all when None.
        shots: At most so many images a class, drawn by `seed`.
        seed: Of the draw.
        progress: Told of downloads and of decoding.

    Raises:
        UsageError: There are fewer classes, or a class has no image.
        NbtError: The dataset cannot be fetched.
    """
    listing = read_digits(source=True) if source.kind == "digits" else read_dataset(source, progress=progress)
    listing = listing.take(np.flatnonzero(listing.roles != "test"))
    listing = listing.select_classes(classes) if isinstance(classes, int) else _select_classes(listing, classes)
    if shots is not None:
        listing = listing.take(_limit_shots(listing.labels, shots, seed))
    store, kept = decode_images(listing.items, image_size, progress=progress)
    left = listing if len(kept) == len(listing) else listing.take(kept)
    counts = np.bincount(left.labels, minlength=len(left.class_names))
    if (counts == 0).any():
        raise UsageError(f"{left.name}: class {left.class_names[int(counts.argmin())]!r} has no image to pretrain on")
    return SourceImages(left.name, left.class_names, store.array, left.labels, _digest(left, image_size))


def _select_classes(listing: Listing, classes: Sequence[int] | None) -> Listing:
    if classes is None:
        return listing
    number = np.full(len(listing.class_names), -1)
    number[list(classes)] = np.arange(len(classes))
    chosen = listing.take(np.flatnonzero(number[listing.labels] >= 0))
    names = tuple(listing.class_names[index] for index in classes)
    return dataclasses.replace(chosen, class_names=names, labels=number[chosen.labels])


def _limit_shots(labels: npt.NDArray[np.int64], shots: int, seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng([seed, shots])
    parts = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(parts))


def _digest(listing: Listing, image_size: int) -> str:
    return hashlib.sha256(json.dumps([listing.digest(), image_size]).encode()).hexdigest()[:20]
