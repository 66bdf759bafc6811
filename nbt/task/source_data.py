"""Images of the source task, to measure how well a trained body still works with the source's classifier."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbt.data.checks.copies import copies_text
from nbt.data.image_store import ImageStore, decode_images
from nbt.data.listing import relative_names
from nbt.data.near_copies.cache import cached_near_copies
from nbt.data.near_copies.search import first_of_equal
from nbt.data.registry import read_dataset
from nbt.errors import UsageError, nearest

if TYPE_CHECKING:
    from nbt.data.listing import Listing
    from nbt.data.resolve import DatasetSource
    from nbt.models.source_classes import SourceClasses
    from nbt.progress import Progress

_log = logging.getLogger(__name__)

_WORDNET_NUMBER = re.compile(r"n\d{8}")
_MAX_NAMES_SHOWN = 3


@dataclass(frozen=True, eq=False)
class SourceData:
    """Labelled images of the source task, with the labels of the source's classifier.

    Attributes:
        dataset: Absolute path of the folder or manifest.
        images: Decoded images, uint8 (N, H, W, 3), of the size of the task's images.
        labels: Index of the classifier's output that stands for the class of each image, 0 ... C_s-1, int64 (N,).
        class_names: Names of the classes in the folder or manifest.
        matching: How the classes were matched with outputs: "names", "numbers" or "order".
        fingerprint: Hash of the bytes of the image files and of their classes.
        copies: The images whose pixels are those of an earlier one, such as "a/1.png = a/2.png". They count in the
            source accuracy, as copies within the test images count in the test accuracy.
        near_copies: The other images that are near copies of an earlier one, such as "a/1.png and a/2.png".
    """

    dataset: str
    images: ImageStore
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    matching: str
    fingerprint: str
    copies: tuple[str, ...] = ()
    near_copies: tuple[str, ...] = ()

    def warn_of_copies(self) -> None:
        """Logs how many images are copies of others, if there are any."""
        found = (*self.copies, *self.near_copies)
        if not found:
            return
        shown = ", ".join(found[:_MAX_NAMES_SHOWN]) + (", ..." if len(found) > _MAX_NAMES_SHOWN else "")
        _log.warning(
            "--source-data %s: its %d images contain %s, which the source accuracy counts, too: %s; keep one of each",
            self.dataset,
            len(self.labels),
            copies_text(len(self.copies), len(self.near_copies)),
            shown,
        )


def load_source_data(
    source: DatasetSource,
    classes: SourceClasses,
    size: int,
    *,
    resize: str = "crop",
    progress: Progress | None = None,
) -> SourceData:
    """Lists and decodes images of the source, and matches their classes with outputs of its classifier.

    Of a folder with test images, only these are used; else of one with validation images, these.

    Args:
        source: The labelled images.
        classes: Classes of the classifier.
        size: Height and width of the images in pixels.
        resize: How images become square, as in `nbt.task.load.load_task`.
        progress: Called with the number of decoded images.

    Raises:
        UsageError: The images are malformed or none can be read, or a class cannot be matched.
        NbtError: The cache cannot be written.
    """
    listing = _held_out(read_dataset(source)).with_hashes()
    outputs, matching = match_classes(listing.class_names, classes, source.dataset)
    images, readable = decode_images(
        listing.items, size, resize=resize, progress=progress, hashes=listing.hashes, dataset=source.dataset
    )
    if not len(readable):
        raise UsageError(f"--source-data {source.dataset}: none of its {len(listing)} images can be read")
    read = listing.take(readable)
    copies, near_copies = _find_copies(read, images, source.dataset)
    return SourceData(
        dataset=source.dataset,
        images=images,
        labels=outputs[read.labels],
        class_names=listing.class_names,
        matching=matching,
        fingerprint=hashlib.sha256(f"{listing.digest()}\n{listing.content_hash}".encode()).hexdigest(),
        copies=copies,
        near_copies=near_copies,
    )


def match_classes(names: Sequence[str], classes: SourceClasses, dataset: str) -> tuple[npt.NDArray[np.int64], str]:
    """Matches classes of images with outputs of the source's classifier.

    Each class is matched by its name (regardless of case, "_" and "-") or, if the classifier has no class of this name
    and none with a number as its name, as the number of an output. If there are as many classes as outputs, and
    the names of the outputs are not known or those of the classes are numbers of WordNet ("n01440764"), they are
    matched in their order: numerically if all are whole numbers, else alphabetically.

    Args:
        names: Names of the classes.
        classes: Classes of the classifier.
        dataset: The images, for messages.

    Returns:
        The output of each class, int64 (c,); and "names", "numbers" or "order".

    Raises:
        UsageError: A class cannot be matched, or two have the same output; the message names them and the remedy.
    """
    counts = Counter(map(_normalised, classes.names))
    # ImageNet has two classes of the name "crane": such names say nothing.
    by_name = {name: i for i, name in enumerate(map(_normalised, classes.names)) if counts[name] == 1}
    found = [by_name.get(_normalised(name)) for name in names]
    # A class "5" of digits is not output 5.
    count = 0 if any(name.isdecimal() for name in by_name) else classes.count
    by_number = [
        _output_number(name, count) if known is None else known for name, known in zip(names, found, strict=True)
    ]
    if None not in by_number:
        _check_distinct(names, by_number, dataset)
        return np.array(by_number, dtype=np.int64), "names" if None not in found else "numbers"
    if len(names) == classes.count and (not classes.names or all(map(_WORDNET_NUMBER.fullmatch, names))):
        return np.arange(classes.count), "order"
    unknown = [name for name, output in zip(names, by_number, strict=True) if output is None]
    shown = ", ".join(unknown[:_MAX_NAMES_SHOWN]) + (", ..." if len(unknown) > _MAX_NAMES_SHOWN else "")
    hint = f" (for {unknown[0]}: {nearest(_normalised(unknown[0]), by_name)})" if by_name else ""
    ways = ["a class of the source"] if by_name else []
    ways += [f"the number of its output, 0 to {count - 1}"] if count else []
    raise UsageError(
        f"--source-data {dataset}: {len(unknown)} of {len(names)} classes cannot be matched with the {classes.count} "
        f"outputs of the source's classifier: {shown}{hint}; name each folder after {' or '.join(ways)}"
        + ("" if by_name else f", or give images of all {classes.count} classes")
    )


def _check_distinct(names: Sequence[str], outputs: Sequence[int | None], dataset: str) -> None:
    """Raises UsageError if two classes have the same output."""
    first: dict[int | None, str] = {}
    for name, output in zip(names, outputs, strict=True):
        if output in first:
            raise UsageError(
                f"--source-data {dataset}: the classes {first[output]} and {name} are both matched with output "
                f"{output} of the source's classifier; name all folders after classes, or all after numbers of outputs"
            )
        first[output] = name


def _held_out(listing: Listing) -> Listing:
    """Returns the listing of the test images, else of the validation images, else of all images."""
    for role in ("test", "val"):
        index = np.flatnonzero(listing.roles == role)
        if len(index):
            part = listing.take(index)
            return part.keep_classes(np.unique(part.labels))
    return listing


def _find_copies(listing: Listing, images: ImageStore, dataset: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns `copies` and `near_copies` of the images that could be read; the listing is in the order of `images`."""
    first = first_of_equal(images.array)
    in_memory = isinstance(listing.items, np.ndarray)
    names = [f"image {i}" for i in range(len(listing))] if in_memory else relative_names(list(listing.items))
    groups = (np.unique(first[group]) for group in cached_near_copies(images.array, dataset).groups)
    return (
        tuple(f"{names[first[i]]} = {name}" for i, name in enumerate(names) if first[i] != i),
        tuple(f"{names[group[0]]} and {names[i]}" for group in groups for i in group[1:]),
    )


def _normalised(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _output_number(name: str, count: int) -> int | None:
    number = int(name) if name.isdecimal() else count
    return number if number < count else None
