"""The sample contains every class, is bounded, and depends only on its seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.fit.sampling import DEFAULT_SAMPLES, draw_sample

class_sizes = st.lists(st.integers(1, 60), min_size=2, max_size=12)


def labels_of(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)


@given(class_sizes, st.integers(0, 300), st.integers(0, 3))
def test_every_class_is_drawn_and_the_rest_is_proportional(sizes: list[int], extra: int, seed: int) -> None:
    labels = labels_of(sizes)
    index = np.arange(len(labels))[::-1].copy()
    samples = len(sizes) + extra
    drawn = draw_sample(labels, index, samples, seed)
    counts = np.bincount(labels[drawn], minlength=len(sizes))
    assert len(drawn) == min(samples, len(labels)) == len(set(drawn.tolist()))
    assert counts.min() >= 1
    if samples >= 2 * len(sizes):
        assert (counts >= np.minimum(sizes, 2)).all()
    share = np.asarray(sizes) * min(1.0, samples / len(labels))
    # The images that small classes get beyond their share are taken from the others.
    assert (counts <= np.maximum(np.ceil(share), 2)).all()


@given(class_sizes, st.integers(0, 50))
def test_the_same_seed_draws_the_same_sample(sizes: list[int], seed: int) -> None:
    labels = labels_of(sizes)
    index = np.arange(len(labels))
    first, second = (draw_sample(labels, index, len(sizes), seed) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_another_seed_draws_another_sample() -> None:
    labels = labels_of([50, 50])
    first, second = (draw_sample(labels, np.arange(100), 20, seed) for seed in (0, 1))
    assert set(first.tolist()) != set(second.tolist())


def test_only_images_of_the_index_are_drawn_in_random_order() -> None:
    labels = labels_of([100, 100])
    drawn = draw_sample(labels, np.arange(0, 200, 2), 60)
    assert (drawn % 2 == 0).all()
    assert 5 < labels[drawn][:30].sum() < 25


def test_by_default_the_sample_is_bounded_and_has_two_of_each_class() -> None:
    few, many = labels_of([3000] * 2), labels_of([4] * 700)
    assert len(draw_sample(few, np.arange(len(few)))) == DEFAULT_SAMPLES
    drawn = draw_sample(many, np.arange(len(many)))
    assert (np.bincount(many[drawn]) == 2).all()


def test_a_sample_smaller_than_the_classes_is_refused_with_the_number_needed() -> None:
    labels = labels_of([5] * 7)
    with pytest.raises(ValueError, match="samples: 6 images cannot show 7 classes; give 7 or more"):
        draw_sample(labels, np.arange(35), 6)
