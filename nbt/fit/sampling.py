"""Which training images a profile looks at: a bounded sample of every class, drawn by a seed."""

from __future__ import annotations

import numpy as np

from nbt.fit.validation import Integers

DEFAULT_SAMPLES = 1000
"""Images of a profile: in the dimensions of common backbones enough for the measures to settle, and cheap."""

MIN_PER_CLASS = 2
"""Images of each class, where there are as many, however large the other classes are."""


def draw_sample(labels: Integers, index: Integers, samples: int | None = None, seed: int = 0) -> Integers:
    """Draws a stratified sample of the training images.

    Every class gives two images where it has them (one where the sample is too small for that), and the rest in
    proportion to its size. The order is random, so that any stretch of the sample is a sample too.

    Args:
        labels: Of all images, int64 (N,), 0 ... C-1.
        index: Training images, int64 (n,).
        samples: At most so many; None is 1000, or two a class where that is more.
        seed: Of the draw, 0 or more.

    Returns:
        Some of `index`, int64 (m,), m = min(samples, n).

    Raises:
        ValueError: The sample is smaller than the number of classes with training images.
    """
    members, counts = np.unique(labels[index], return_counts=True)
    if samples is None:
        samples = max(DEFAULT_SAMPLES, MIN_PER_CLASS * len(members))
    if samples < len(members):
        raise ValueError(
            f"samples: {samples} images cannot show {len(members)} classes; give {len(members)} or more "
            f"({MIN_PER_CLASS * len(members)} for {MIN_PER_CLASS} a class)"
        )
    generator = np.random.default_rng(seed)
    quota = allocate_quotas(counts, min(samples, len(index)), generator)
    chosen = [
        generator.permutation(index[labels[index] == label])[:count]
        for label, count in zip(members, quota, strict=True)
    ]
    return generator.permutation(np.concatenate(chosen))


def allocate_quotas(counts: Integers, total: int, generator: np.random.Generator) -> Integers:
    """Returns how many images each class gives, int64 (C,); they sum to `total`, and no class gives more than it has.

    Args:
        counts: Images each class has, int64 (C,), 1 or more.
        total: C ... counts.sum().
        generator: Decides between classes whose claims are equal.
    """
    quota = np.ones_like(counts)
    # The order decides ties only: second images first, then the largest share that is still owed.
    order = generator.permutation(len(counts))
    seconds = order[counts[order] > 1][: total - len(counts)]
    quota[seconds] = MIN_PER_CLASS
    share = counts * (total / counts.sum())
    while (missing := total - int(quota.sum())) > 0:
        owed = np.where(quota < counts, share - quota, -np.inf)
        ranked = order[np.argsort(-owed[order], kind="stable")]
        under_quota = ranked[owed[ranked] >= 1][:missing]
        if len(under_quota):
            quota[under_quota] += np.minimum(
                owed[under_quota].astype(np.int64), _share_per_class(missing, len(under_quota))
            )
        else:
            quota[ranked[np.isfinite(owed[ranked])][:missing]] += 1
    return quota


def _share_per_class(amount: int, parts: int) -> int:
    return max(1, amount // parts)
