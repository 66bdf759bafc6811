"""Listings: the images of a dataset with labels and official splits, before decoding."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbt.data.content import Hashes, content_hash, file_hashes
from nbt.data.image_files import LabelledFile, PassedOver, sort_class_names
from nbt.data.layout import Layout
from nbt.errors import UsageError

Items = Sequence[Path] | npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a dataset, not yet decoded.

    Attributes:
        name: Name of the dataset.
        class_names: Class names in the order of the labels.
        items: N image files, or N images in memory, uint8 (N, H, W, 3).
        labels: Class indices 0 ... C-1, int64 (N,).
        roles: Official split of each image, "train", "val", "test", or "" for none, (N,).
        passed_over: Files of the dataset that are not read as images.
        layout: How the folder was read; None for datasets known by name and for manifests.
        hashes: Hashes of the files, see `nbt.data.content.file_hashes`; None before they are made, and for images in
            memory.
    """

    name: str
    class_names: tuple[str, ...]
    items: Items
    labels: npt.NDArray[np.int64]
    roles: npt.NDArray[np.str_]
    passed_over: tuple[PassedOver, ...] = ()
    layout: Layout | None = None
    hashes: Hashes | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.int64]) -> Listing:
        """Returns the listing of a selection of images.

        Args:
            index: Indices of the images, in the order of the result, int64 (n,).
        """
        items: Items
        items = self.items[index] if isinstance(self.items, np.ndarray) else [self.items[i] for i in index.tolist()]
        hashes = None if self.hashes is None else self.hashes[index]
        return dataclasses.replace(self, items=items, labels=self.labels[index], roles=self.roles[index], hashes=hashes)

    def with_hashes(self) -> Listing:
        """Returns the listing with the hashes of its files, whose bytes are read where they may have changed."""
        return self if isinstance(self.items, np.ndarray) else dataclasses.replace(self, hashes=file_hashes(self.items))

    @property
    def content_hash(self) -> str | None:
        """Hash of the bytes of the files, see `nbt.data.content.content_hash`; None for images in memory."""
        return None if isinstance(self.items, np.ndarray) else content_hash(self.items, self.hashes)

    def select_classes(self, n: int | None) -> Listing:
        """Returns the listing of the first `n` classes, or of all classes for None.

        Raises:
            UsageError: The dataset has fewer classes, or `n` is below 2.
        """
        if n is None:
            return self
        if not 2 <= n <= len(self.class_names):
            raise UsageError(f"--classes {n}: {self.name} has {len(self.class_names)} classes; give 2 or more of them")
        selected = self.take(np.flatnonzero(self.labels < n))
        return dataclasses.replace(selected, class_names=self.class_names[:n])

    def keep_classes(self, kept: npt.NDArray[np.int64]) -> Listing:
        """Returns the listing with the labels of some classes only; it must hold images of no other class.

        Args:
            kept: Class indices, ascending, int64 (c,).
        """
        names = tuple(self.class_names[label] for label in kept.tolist())
        return dataclasses.replace(self, class_names=names, labels=np.searchsorted(kept, self.labels))

    def digest(self) -> str:
        """Returns a hash of classes, images, labels and official splits.

        Images in memory enter by content, files by size and by path relative to their common folder, so that a dataset
        may be moved.
        """
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        if isinstance(self.items, np.ndarray):
            digest.update(np.ascontiguousarray(self.items).data)
        else:
            for path, name in zip(self.items, relative_names(self.items), strict=True):
                digest.update(f"{name}\0{_file_size(path)}\0".encode("utf-8", "surrogateescape"))
        digest.update(self.labels.tobytes())
        digest.update("\0".join(self.roles.tolist()).encode())
        return digest.hexdigest()


def listing_from_files(
    name: str,
    rows: Sequence[LabelledFile],
    class_names: Iterable[str] | None = None,
    passed_over: Iterable[PassedOver] = (),
    layout: Layout | None = None,
) -> Listing:
    """Builds a listing of labelled files.

    Args:
        name: Name of the dataset.
        rows: The files.
        class_names: The class names in order; sorted by `sort_class_names` when None.
        passed_over: Files of the dataset that are not read as images.
        layout: How the folder was read.
    """
    names = sort_class_names(row.label for row in rows) if class_names is None else list(class_names)
    label_index = {label: i for i, label in enumerate(names)}
    return Listing(
        name=name,
        class_names=tuple(names),
        items=[row.path for row in rows],
        labels=np.array([label_index[row.label] for row in rows], dtype=np.int64),
        roles=np.array([row.split for row in rows], dtype="<U5"),
        passed_over=tuple(passed_over),
        layout=layout,
    )


def relative_names(paths: Sequence[Path]) -> list[str]:
    """Returns the paths relative to their deepest common folder, with "/" as separator."""
    if not paths:
        return []
    texts = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - ten times faster, and keeps links
    shared = os.path.commonpath([os.path.dirname(text) for text in texts])  # noqa: PTH120
    cut = len(shared.rstrip(os.sep)) + 1
    return [text[cut:].replace(os.sep, "/") for text in texts]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
