from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from nbt.fit import knn as neighbours
from nbt.fit.knn import knn_accuracy
from tests.fit.measure_contract import MeasureContract, draw


class TestKNN(MeasureContract):
    measure = staticmethod(knn_accuracy)
    tolerance = 1e-9

    @pytest.mark.parametrize("k", [1, 3, 7])
    def test_leaves_one_out_as_scikit_learn_does(self, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neighbours, "_BLOCK_ROWS", 16)
        features, labels = draw(k, classes=2, apart=0.5)  # two classes and odd k: no ties
        right = 0
        for left_out in range(len(labels)):
            rest = np.arange(len(labels)) != left_out
            model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(features[rest], labels[rest])
            right += int(model.predict(features[left_out : left_out + 1])[0] == labels[left_out])
        assert knn_accuracy(features, labels, k) == pytest.approx(right / len(labels))

    @pytest.mark.parametrize("offset", [0.0, 1e4])
    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_directions_that_are_nearly_one_are_told_apart(self, k: int, offset: float) -> None:
        features, labels = draw(k, 1100, 20, 5, apart=0.7)  # more than a block
        features += offset
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        units -= units.mean(axis=0)  # cosines differ by 1e-8: distances say the same without cancellation
        apart = np.square(units).sum(axis=1) - 2.0 * units @ units.T
        np.fill_diagonal(apart, np.inf)
        nearest = np.argsort(apart, axis=1)[:, :k]
        near = -np.take_along_axis(apart, nearest, axis=1)
        said = [
            max(range(5), key=lambda label: ((labels[row] == label).sum(), close[labels[row] == label].sum()))
            for row, close in zip(nearest, near, strict=True)
        ]
        assert knn_accuracy(features, labels, k) == pytest.approx(np.mean(said == labels), abs=2e-3)

    def test_a_sample_of_no_length_is_like_nothing(self) -> None:
        # To the last, which points away from the rest, it is the nearest.
        features = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [-1.0, -0.1]])
        assert knn_accuracy(features, np.array([1, 0, 0, 0, 1]), 1) >= 0.8

    def test_of_equal_votes_the_nearer_class_wins(self) -> None:
        angles = np.deg2rad([0, 10, 15, 80, 90])
        features, labels = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 1, 1])
        # The first sample's two nearest are one of each class, its own being nearer.
        assert knn_accuracy(features, labels, 2) == pytest.approx(np.mean([True, False, False, True, True]))

    def test_lone_samples_are_always_wrong(self) -> None:
        assert knn_accuracy(np.random.default_rng(0).standard_normal((12, 4)), np.arange(12)) == 0.0

    def test_length_of_features_does_not_matter(self) -> None:
        features, labels = draw(1)
        lengths = np.random.default_rng(0).uniform(0.1, 10, size=(60, 1))
        assert knn_accuracy(features * lengths, labels) == knn_accuracy(features, labels)

    def test_refuses_no_neighbours(self) -> None:
        with pytest.raises(ValueError, match="k: 0 is not 1 or more"):
            knn_accuracy(*draw(2), k=0)
