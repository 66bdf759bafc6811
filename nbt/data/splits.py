"""Which images are for training, validation and test: stratified, seeded, and test never moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.errors import UsageError

Index = npt.NDArray[np.int64]

TEST_SHARE = 0.2
"""Share of each class that is cut off for test where a dataset has no official test split."""

VALIDATION_IMAGES = 400
"""Validation images that the cut aims at: an accuracy near .5 then carries 2.5 points of standard error."""

VALIDATION_SHARES = (0.10, 0.25)
"""Bounds on the share of the labelled images that the cut takes to reach `VALIDATION_IMAGES`."""

# The streams of random numbers. The first is all that decides on test: no seed of the user's enters it.
_TEST_SEED = (0x7E57,)
_VALIDATION_SEED = 1
_SHOTS_SEED = 2


@dataclass(frozen=True, eq=False)
class Pools:
    """The labelled images by what they may be used for, as sorted indices.

    Attributes:
        train: To train on, and to cut validation from where `val` is None; int64 (n,).
        val: The official validation images, or None.
        test: To test on, once, at the end.
    """

    train: Index
    val: Index | None
    test: Index


@dataclass(frozen=True, eq=False)
class Split:
    """What one run trains, validates and tests on, as sorted indices, int64 (n,) each; disjoint."""

    train: Index
    val: Index
    test: Index

    def merge_validation(self) -> Split:
        """Returns the split with the validation images moved to train."""
        return Split(np.sort(np.concatenate([self.train, self.val])), np.empty(0, dtype=np.int64), self.test)


def make_pools(labels: Index, roles: npt.NDArray[np.str_], class_names: Sequence[str]) -> Pools:
    """Divides the images into pools: by their official roles, and test cut off by a fixed seed if none is official.

    Images without a role belong to train. Which images of a class become test depends on the number and order of
    its images alone, not on other classes, and on no seed.

    Args:
        labels: int64 (N,).
        roles: (N,) of "train", "val", "test" or "".
        class_names: For messages.

    Raises:
        UsageError: A class has too few images to stand in every part.
    """
    val = np.flatnonzero(roles == "val")
    test = np.flatnonzero(roles == "test")
    train = np.flatnonzero((roles != "val") & (roles != "test"))
    pools = Pools(train, val if len(val) else None, test)
    if len(test):
        _check_counts(pools, labels, class_names, _min_images_per_class(pools), "train and validate on")
        return pools
    _check_counts(pools, labels, class_names, _min_images_per_class(pools) + 1, "train, validate and test on")
    generators = [np.random.default_rng([*_TEST_SEED, label]) for label in range(len(class_names))]
    test = _draw_stratified(train, labels, TEST_SHARE, generators)
    return Pools(np.setdiff1d(train, test), pools.val, test)


def check_pools(pools: Pools, labels: Index, class_names: Sequence[str]) -> None:
    """Checks that every class can still stand in train and validation, for instance after images were left out.

    Raises:
        UsageError: One cannot; or no test image is left.
    """
    _check_counts(pools, labels, class_names, _min_images_per_class(pools), "train and validate on")
    if not len(pools.test):
        raise UsageError("no test image is left")


def limit_shots(pools: Pools, labels: Index, shots: int, seed: int) -> Pools:
    """Draws at most `shots` labelled images a class; test stays.

    Where validation is official, its images count too, and both parts keep their proportion, with at least one each.

    Args:
        pools: Of all images.
        labels: int64 (N,).
        shots: 2 or more.
        seed: Of the task.

    Raises:
        UsageError: `shots` is below 2.
    """
    if shots < 2:
        raise UsageError(f"--shots {shots}: a class needs 2 labelled images or more, to train and to validate on")
    generator = np.random.default_rng([_SHOTS_SEED, seed])
    train: list[Index] = []
    val: list[Index] = []
    for label in np.unique(labels[pools.train]):
        of_train = _shuffled_members(pools.train, labels, label, generator)
        of_val = of_train[:0] if pools.val is None else _shuffled_members(pools.val, labels, label, generator)
        n_val = round(shots * len(of_val) / (len(of_val) + len(of_train)))
        n_val = min(max(n_val, min(1, len(of_val))), shots - 1)
        train.append(of_train[: shots - n_val])
        val.append(of_val[:n_val])
    return Pools(
        np.sort(np.concatenate(train)), None if pools.val is None else np.sort(np.concatenate(val)), pools.test
    )


def make_split(pools: Pools, labels: Index, seed: int) -> Split:
    """Returns what to train, validate and test on. Official validation images stay; else they are cut by the seed.

    The cut is stratified: every class gives the same share, rounded, and keeps and gives one image at least.

    Args:
        pools: From `make_pools`.
        labels: int64 (N,).
        seed: 0 or more; another one gives another validation split, and the same test.
    """
    if pools.val is not None:
        return Split(pools.train, pools.val, pools.test)
    generator = np.random.default_rng([_VALIDATION_SEED, seed])
    n_classes = int(labels[pools.train].max()) + 1 if len(pools.train) else 0
    val = _draw_stratified(pools.train, labels, validation_share(len(pools.train)), [generator] * n_classes)
    return Split(np.setdiff1d(pools.train, val), val, pools.test)


def validation_share(n: int) -> float:
    """Returns the share of `n` labelled images that is held out: larger when they are few."""
    low, high = VALIDATION_SHARES
    return min(max(VALIDATION_IMAGES / n, low), high) if n else high


def validation_standard_error(accuracy: float, n: int) -> float:
    """Returns the standard error of an accuracy measured on `n` images, sqrt(p (1 - p) / n); infinite for none.

    Args:
        accuracy: 0 ... 1.
        n: Number of images.
    """
    return math.sqrt(accuracy * (1.0 - accuracy) / n) if n else math.inf


def _min_images_per_class(pools: Pools) -> int:
    """Returns how many images of each class the train pool must have: one to train on, one to cut for validation."""
    return 1 if pools.val is not None else 2


def _check_counts(pools: Pools, labels: Index, class_names: Sequence[str], needed: int, purpose: str) -> None:
    counts = np.bincount(labels[pools.train], minlength=len(class_names))
    for name, count in zip(class_names, counts.tolist(), strict=True):
        if count < needed:
            images = "image" if needed == 1 else "images"
            raise UsageError(f"class {name!r} has {count} of the {needed} {images} it needs to {purpose}")


def _draw_stratified(pool: Index, labels: Index, share: float, generators: Sequence[np.random.Generator]) -> Index:
    """Draws the same share of every class, rounded, at least one and never all; `generators` has one a class."""
    chosen = [np.empty(0, dtype=np.int64)]
    for label, generator in enumerate(generators):
        members = _shuffled_members(pool, labels, label, generator)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen.append(members[: max(count, 0)])
    return np.sort(np.concatenate(chosen))


def _shuffled_members(pool: Index, labels: Index, label: int, generator: np.random.Generator) -> Index:
    return generator.permutation(pool[labels[pool] == label])
