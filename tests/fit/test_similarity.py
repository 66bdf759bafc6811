from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nbt.fit.emd import earth_movers_distance, emd_similarity
from nbt.fit.similarity import label_similarity, relative_emd_similarity

RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.standard_normal((6, 4)), RNG.standard_normal((3, 4)) + 0.5
SUPPLY, DEMAND = np.array([3, 0, 4, 1, 5, 9]), np.array([6, 5, 3])


def _similarity(scale: float = 1.0) -> float:
    emd = emd_similarity(scale * SOURCE, SUPPLY, scale * TARGET, DEMAND)
    return relative_emd_similarity(emd, scale * SOURCE, SUPPLY)


def test_the_distance_is_relative_to_that_of_two_images_of_different_source_classes() -> None:
    images = np.repeat(np.arange(6), SUPPLY)
    distances = [
        np.linalg.norm(SOURCE[a] - SOURCE[b]) for a in images for b in images if a != b
    ]  # over all ordered pairs of images
    emd = earth_movers_distance(cdist(SOURCE, TARGET), SUPPLY / SUPPLY.sum(), DEMAND / DEMAND.sum())
    assert _similarity() == pytest.approx(np.exp(-emd / np.mean(distances)))


def test_it_does_not_depend_on_the_scale_of_the_features() -> None:
    assert _similarity(30.0) == pytest.approx(_similarity())
    assert emd_similarity(30 * SOURCE, SUPPLY, 30 * TARGET, DEMAND) < 0.9 * emd_similarity(
        SOURCE, SUPPLY, TARGET, DEMAND
    )


def test_equal_classes_have_similarity_1_and_a_source_of_one_class_none() -> None:
    assert relative_emd_similarity(1.0, SOURCE, SUPPLY) == 1.0
    with pytest.raises(ValueError, match="one class mean"):
        relative_emd_similarity(0.9, SOURCE, [0, 0, 4, 0, 0, 0])


def test_the_explained_share_of_the_entropy() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert label_similarity(np.eye(3)[labels], labels) == pytest.approx(1.0)
    assert label_similarity(np.full((6, 4), 0.25), labels) == pytest.approx(0.0)
    # The source separates label 0 from the others: what is left is the entropy of 1 and 2 in four of six images.
    left = -4 / 6 * (0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    entropy = -sum(p * np.log(p) for p in (2 / 6, 3 / 6, 1 / 6))
    assert label_similarity(np.eye(2)[(labels > 0).astype(int)], labels) == pytest.approx(1 - left / entropy)
