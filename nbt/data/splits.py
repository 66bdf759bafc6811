"""Splits into training, validation and test images: stratified and seeded, with a fixed test part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.errors import UsageError

Index = npt.NDArray[np.int64]

TEST_SHARE = 0.2
"""Share of each class that is held out for test where a dataset has no official test split."""

VALIDATION_IMAGES = 400
"""Target number of validation images: the standard error of an accuracy near .5 is then 2.5 points."""

VALIDATION_SHARES = (0.10, 0.25)
"""Bounds on the share of the labelled images that is held out for validation."""

# Keys of the random generators. The first is used without the user's seed: the test part is the same for all seeds.
_TEST_SEED = (0x7E57,)
_VALIDATION_SEED = 1
_SHOTS_SEED = 2


@dataclass(frozen=True, eq=False)
class Pools:
    """Sorted indices of the labelled images by their possible use.

    Attributes:
        train: Images for training, and for validation where `val` is None; int64 (n,).
        val: The official validation images, or None.
        test: Test images, int64 (n,).
    """

    train: Index
    val: Index | None
    test: Index


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted, disjoint indices of the images that one run trains, validates and tests on, int64 (n,) each."""

    train: Index
    val: Index
    test: Index

    def merge_validation(self) -> Split:
        """Returns the split with the validation images moved to the training images."""
        return Split(np.sort(np.concatenate([self.train, self.val])), np.empty(0, dtype=np.int64), self.test)

    def thin_out(self, max_train: int) -> Split:
        """Returns the split with at most `max_train` training images and the same share of the validation images."""
        share = min(1.0, max_train / max(1, len(self.train)))

        def every(index: Index) -> Index:
            return index[np.linspace(0, len(index) - 1, round(len(index) * share)).astype(np.int64)]

        return Split(every(self.train), every(self.val), self.test)


def make_pools(labels: Index, roles: npt.NDArray[np.str_], class_names: Sequence[str]) -> Pools:
    """Divides the images into pools by their official splits; without an official test split, test images are drawn.

    Images without an official split belong to train. The test images that are drawn from a class depend only on the
    number and order of its images, neither on the other classes nor on a seed. Classes that are too small to be divided
    into all parts keep their images for training.

    Args:
        labels: Class indices, int64 (N,).
        roles: Official splits, "train", "val", "test" or "", (N,).
        class_names: Class names, for messages.

    Raises:
        UsageError: See `check_pools`.
    """
    val = np.flatnonzero(roles == "val")
    test = np.flatnonzero(roles == "test")
    train = np.flatnonzero((roles != "val") & (roles != "test"))
    pools = Pools(train, val if len(val) else None, test)
    if not len(test):
        rngs = [np.random.default_rng([*_TEST_SEED, label]) for label in range(len(class_names))]
        test = _draw_stratified(train, labels, TEST_SHARE, rngs, least=min_images_per_class(pools))
        pools = Pools(np.setdiff1d(train, test), pools.val, test)
    check_pools(pools, labels, class_names)
    return pools


def check_pools(pools: Pools, labels: Index, class_names: Sequence[str]) -> None:
    """Checks that a model can be trained, validated and tested.

    Raises:
        UsageError: Fewer than two classes have images to train on, or no image is left to validate or to test on.
    """
    counts = np.bincount(labels[pools.train], minlength=len(class_names))
    trained = [name for name, count in zip(class_names, counts.tolist(), strict=True) if count]
    if len(trained) < 2:
        found = f"only class {trained[0]!r} has" if trained else "no class has"
        raise UsageError(f"{found} images to train on; a task needs two or more classes")
    if pools.val is None and counts.max() < 2:
        raise UsageError("no class has a second image to validate on; a class needs 2 or more besides its test images")
    if not len(pools.test):
        raise UsageError("no image is left to test on; a class needs 3 or more images, so that one can be held out")


def min_images_per_class(pools: Pools) -> int:
    """Returns the number of images that a class needs in order to be in all parts.

    Args:
        pools: Pools with the official test images, of which there may be none.
    """
    return 1 + (pools.val is None) + (not len(pools.test))


def limit_shots(pools: Pools, labels: Index, shots: int, seed: int) -> Pools:
    """Draws at most `shots` labelled images per class; the test pool is unchanged.

    Official validation images count towards `shots`; train and validation keep their proportion, with one image or more
    each.

    Args:
        pools: Pools of all images.
        labels: Class indices, int64 (N,).
        shots: Images per class, 2 or more.
        seed: Seed of the draw.

    Raises:
        UsageError: `shots` is below 2.
    """
    if shots < 2:
        raise UsageError(f"--shots {shots}: a class needs 2 labelled images or more, to train and to validate on")
    rng = np.random.default_rng([_SHOTS_SEED, seed])
    train: list[Index] = []
    val: list[Index] = []
    for label in np.unique(labels[pools.train]):
        train_members = _shuffled_members(pools.train, labels, label, rng)
        val_members = train_members[:0] if pools.val is None else _shuffled_members(pools.val, labels, label, rng)
        n_val = round(shots * len(val_members) / (len(val_members) + len(train_members)))
        n_val = min(max(n_val, min(1, len(val_members))), shots - 1)
        train.append(train_members[: shots - n_val])
        val.append(val_members[:n_val])
    return Pools(
        np.sort(np.concatenate(train)), None if pools.val is None else np.sort(np.concatenate(val)), pools.test
    )


def make_split(pools: Pools, labels: Index, seed: int, fold: int = 0) -> Split:
    """Divides the pools into training, validation and test images.

    Official validation images are kept. Else validation images are drawn, stratified: the same rounded share of every
    class, with one image or more in either part. The folds of a seed have equally many validation images of each class,
    and validate every image of a class once before any is validated twice.

    Args:
        pools: Pools from `make_pools`.
        labels: Class indices, int64 (N,).
        seed: Seed of the validation split, 0 or more; it does not affect the test images.
        fold: Fold of the seed, 0 or more; official validation images are the same in all folds.
    """
    if pools.val is not None:
        return Split(pools.train, pools.val, pools.test)
    rng = np.random.default_rng([_VALIDATION_SEED, seed])
    n_classes = int(labels[pools.train].max()) + 1 if len(pools.train) else 0
    val = _draw_stratified(pools.train, labels, validation_share(len(pools.train)), [rng] * n_classes, fold=fold)
    return Split(np.setdiff1d(pools.train, val), val, pools.test)


def validation_share(n: int) -> float:
    """Returns the share of `n` labelled images that is held out for validation, larger for fewer images."""
    low, high = VALIDATION_SHARES
    return min(max(VALIDATION_IMAGES / n, low), high) if n else high


def validation_standard_error(accuracy: float, n: int) -> float:
    """Returns the standard error of an accuracy measured on `n` images, sqrt(p (1 - p) / n); infinite for `n` = 0.

    Args:
        accuracy: Accuracy p, 0 ... 1.
        n: Number of images.
    """
    return math.sqrt(accuracy * (1.0 - accuracy) / n) if n else math.inf


def _draw_stratified(
    pool: Index,
    labels: Index,
    share: float,
    rngs: Sequence[np.random.Generator],
    least: int = 2,
    fold: int = 0,
) -> Index:
    """Draws the same rounded share of every class, at least one image and never all.

    Args:
        pool: Indices to draw from, int64 (n,).
        labels: Class indices, int64 (N,).
        share: Share of each class, 0 ... 1.
        rngs: One generator per class.
        least: Least number of images of a class of which some are drawn.
        fold: Which of the consecutive draws from each shuffled class, which continue at its start.
    """
    drawn = [np.empty(0, dtype=np.int64)]
    for label, rng in enumerate(rngs):
        members = _shuffled_members(pool, labels, label, rng)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        drawn.append(np.roll(members, -fold * count)[: count if len(members) >= least else 0])
    return np.sort(np.concatenate(drawn))


def _shuffled_members(pool: Index, labels: Index, label: int, rng: np.random.Generator) -> Index:
    return rng.permutation(pool[labels[pool] == label])
