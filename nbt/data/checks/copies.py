"""What the checks of copies have in common: which copies are identical, and their words."""

from __future__ import annotations

import hashlib

import numpy as np

from nbt.data.checks.subject import CheckedData
from nbt.data.splits import Index


def same_pixels(subject: CheckedData, indices: Index) -> Index:
    """Returns a number per image, int64 (n,): 0 ... d - 1, equal for images with equal pixels after decoding.

    Args:
        subject: The data.
        indices: Indices of the images, int64 (n,).
    """
    images = (np.ascontiguousarray(subject.images.array[i]) for i in indices.tolist())
    digests = [hashlib.blake2b(image.data, digest_size=16).hexdigest() for image in images]
    return np.asarray(np.unique(digests, return_inverse=True)[1], dtype=np.int64)


def copies_text(identical: int, near: int) -> str:
    """Returns numbers of copies, such as "2 identical copies and 1 near copy (or frame of one scene)"."""
    texts = [f"{identical:,} identical {'copy' if identical == 1 else 'copies'}"] if identical else []
    if near:
        what = "near copy (or frame of one scene)" if near == 1 else "near copies (or frames of one scene)"
        texts.append(f"{near:,} {what}")
    return " and ".join(texts)


def named_together(names: list[str], *, identical: bool) -> str:
    """Returns the names of copies: "a.png = b.png" if their pixels are equal, else "a.png and b.png"."""
    return (" = " if identical else " and ").join(names)
