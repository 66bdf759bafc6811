"""Images that a source model is pretrained on: all images of a dataset except its official test images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.checks import CheckResult, log_failed, run_checks
from nbt.data.checks.registry import DATA_CHECKS
from nbt.data.checks.subject import CheckedData
from nbt.data.image_store import ImageStore, decode_images
from nbt.data.listing import Listing
from nbt.data.readers.digits import read_digits
from nbt.data.registry import read_dataset
from nbt.data.resolve import DatasetSource
from nbt.data.splits import Split
from nbt.errors import UsageError
from nbt.progress import Progress

_CHECKS_OF_PARTS = ("NBT102", "NBT105", "NBT107")


@dataclass(frozen=True, eq=False)
class SourceImages:
    """Decoded images with labels.

    Attributes:
        name: Name of the dataset.
        class_names: One name per class, in the order of the labels.
        pixels: Images, uint8 (N, H, H, 3).
        labels: Labels, int64 (N,), 0 ... C - 1; every class has at least one image.
        digest: Hash that identifies the images and their size.
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
    resize: str = "crop",
    seed: int = 0,
    progress: Progress | None = None,
) -> SourceImages:
    """Returns the images of a dataset for the training of a source; for the embedded digits, the digits 0-4.

    Args:
        source: The dataset; its official test images are left out.
        image_size: Height and width in pixels.
        classes: Number of classes from the start, or labels of the classes; None for all.
        shots: Maximum number of images per class, drawn with `seed`; None for all.
        resize: How images become square, see `nbt.data.decoding.RESIZE`.
        seed: Seed of the draw.
        progress: Called during downloads and decoding.

    Raises:
        UsageError: The dataset has fewer classes, or a class has no image.
        NbtError: The dataset cannot be downloaded.
    """
    listing = read_digits(source=True) if source.kind == "digits" else read_dataset(source, progress=progress)
    listing = listing.take(np.flatnonzero(listing.roles != "test"))
    listing = listing.select_classes(classes) if isinstance(classes, int) else _select_classes(listing, classes)
    if shots is not None:
        listing = listing.take(_limit_shots(listing.labels, shots, seed))
    listing = listing.with_hashes()
    store, kept = decode_images(
        listing.items,
        image_size,
        progress=progress,
        resize=resize,
        hashes=listing.hashes,
        dataset=source.dataset,
    )
    decoded = listing if len(kept) == len(listing) else listing.take(kept)
    counts = np.bincount(decoded.labels, minlength=len(decoded.class_names))
    if (counts == 0).any():
        class_name = decoded.class_names[int(counts.argmin())]
        raise UsageError(f"{decoded.name}: class {class_name!r} has no image to pretrain on")
    if decoded.hashes is not None:
        log_failed(_check(decoded, store, resize))
    digest = _digest(decoded, image_size, resize)
    return SourceImages(decoded.name, decoded.class_names, store.array, decoded.labels, digest)


def _check(listing: Listing, images: ImageStore, resize: str) -> tuple[CheckResult, ...]:
    """Returns the results of the checks of the data that concern images without parts."""
    none = np.empty(0, dtype=np.int64)
    split = Split(np.arange(len(listing), dtype=np.int64), none, none)
    data = CheckedData(listing=listing, images=images, split=split, resize=resize, dataset=listing.name)
    return run_checks(DATA_CHECKS, data, ignore=_CHECKS_OF_PARTS)


def _select_classes(listing: Listing, classes: Sequence[int] | None) -> Listing:
    if classes is None:
        return listing
    new_labels = np.full(len(listing.class_names), -1)
    new_labels[list(classes)] = np.arange(len(classes))
    chosen = listing.take(np.flatnonzero(new_labels[listing.labels] >= 0))
    names = tuple(listing.class_names[index] for index in classes)
    return dataclasses.replace(chosen, class_names=names, labels=new_labels[chosen.labels])


def _limit_shots(labels: npt.NDArray[np.int64], shots: int, seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng([seed, shots])
    parts = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(parts))


def _digest(listing: Listing, image_size: int, resize: str) -> str:
    more = [listing.content_hash, *([] if resize == "crop" else [resize])] if listing.hashes is not None else []
    return hashlib.sha256(json.dumps([listing.digest(), image_size, *more]).encode()).hexdigest()[:20]
