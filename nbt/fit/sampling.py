"""Draws the stratified sample of training images from which a fit profile is computed."""

from __future__ import annotations

import numpy as np

from nbt.fit.validation import IntArray

DEFAULT_SAMPLES = 1000
"""Default number of images of a profile; with it, the measures are stable for common backbones."""

MIN_PER_CLASS = 2
"""Minimum number of images per class, where a class has as many and the sample is large enough."""


def draw_sample(labels: IntArray, index: IntArray, samples: int | None = None, seed: int = 0) -> IntArray:
    """Draws a stratified sample of the training images.

    Every class contributes two images if it has them (one if the sample is too small for that), and the rest in
    proportion to its size. The order is random, so that any slice of the result is a random sample as well.

    Args:
        labels: Class indices 0 ... C-1 of all images, int64 (N,).
        index: Training images, int64 (n,).
        samples: Maximum number of images; None is 1000, or two per class if that is more.
        seed: Seed of the draw, 0 or more.

    Returns:
        A subset of `index`, int64 (m,), m = min(samples, n).

    Raises:
        ValueError: `samples` is smaller than the number of classes with training images.
    """
    members, counts = np.unique(labels[index], return_counts=True)
    if samples is None:
        samples = max(DEFAULT_SAMPLES, MIN_PER_CLASS * len(members))
    if samples < len(members):
        raise ValueError(
            f"samples: {samples} images cannot show {len(members)} classes; give {len(members)} or more "
            f"({MIN_PER_CLASS * len(members)} for {MIN_PER_CLASS} per class)"
        )
    rng = np.random.default_rng(seed)
    quotas = allocate_quotas(counts, min(samples, len(index)), rng)
    drawn = [
        rng.permutation(index[labels[index] == label])[:quota] for label, quota in zip(members, quotas, strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))


def allocate_quotas(counts: IntArray, total: int, rng: np.random.Generator) -> IntArray:
    """Returns the number of images to draw per class, int64 (C,), summing to `total` and not exceeding `counts`.

    Args:
        counts: Number of images per class, int64 (C,), 1 or more.
        total: Total number of images, C ... counts.sum().
        rng: Random generator that breaks ties between classes.
    """
    quotas = np.ones_like(counts)
    # Every class gets a second image first, then the largest deficits are reduced; `order` breaks ties.
    order = rng.permutation(len(counts))
    with_second_image = order[counts[order] > 1][: total - len(counts)]
    quotas[with_second_image] = MIN_PER_CLASS
    proportional = counts * (total / counts.sum())
    while (missing := total - int(quotas.sum())) > 0:
        deficits = np.where(quotas < counts, proportional - quotas, -np.inf)
        ranked = order[np.argsort(-deficits[order], kind="stable")]
        below = ranked[deficits[ranked] >= 1][:missing]
        if len(below):
            quotas[below] += np.minimum(deficits[below].astype(np.int64), max(1, missing // len(below)))
        else:
            quotas[ranked[np.isfinite(deficits[ranked])][:missing]] += 1
    return quotas
