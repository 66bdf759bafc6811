from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from nbt.fit import knn
from nbt.fit.knn import knn_accuracy
from tests.fit.measure_contract import MeasureContract, draw


class TestKNN(MeasureContract):
    measure = staticmethod(knn_accuracy)
    tolerance = 1e-9

    @pytest.mark.parametrize("k", [1, 3, 7])
    def test_agrees_with_leave_one_out_of_scikit_learn(self, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(knn, "_BLOCK_ROWS", 16)
        features, labels = draw(k, classes=2, apart=0.5)  # two classes and odd k: no ties
        correct = 0
        for left_out in range(len(labels)):
            rest = np.arange(len(labels)) != left_out
            model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(features[rest], labels[rest])
            correct += int(model.predict(features[left_out : left_out + 1])[0] == labels[left_out])
        assert knn_accuracy(features, labels, k) == pytest.approx(correct / len(labels))

    @pytest.mark.parametrize("offset", [0.0, 1e4])
    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_nearly_equal_directions_are_distinguished(self, k: int, offset: float) -> None:
        features, labels = draw(k, 1100, 20, 5, apart=0.7)  # more than a block
        features += offset
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        units -= units.mean(axis=0)  # cosines differ by 1e-8; distances are equivalent and do not cancel
        apart = np.square(units).sum(axis=1) - 2.0 * units @ units.T
        np.fill_diagonal(apart, np.inf)
        nearest = np.argsort(apart, axis=1)[:, :k]
        near = -np.take_along_axis(apart, nearest, axis=1)
        predicted = [
            max(range(5), key=lambda label: ((labels[row] == label).sum(), close[labels[row] == label].sum()))
            for row, close in zip(nearest, near, strict=True)
        ]
        assert knn_accuracy(features, labels, k) == pytest.approx(np.mean(predicted == labels), abs=2e-3)

    def test_a_zero_vector_has_similarity_0(self) -> None:
        # It is the nearest neighbour of the last sample, which points away from the others.
        features = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [-1.0, -0.1]])
        assert knn_accuracy(features, np.array([1, 0, 0, 0, 1]), 1) >= 0.8

    def test_ties_are_decided_by_similarity(self) -> None:
        angles = np.deg2rad([0, 10, 15, 80, 90])
        features, labels = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 1, 1])
        # The two nearest neighbours of the first sample are of both classes; that of its own class is nearer.
        assert knn_accuracy(features, labels, 2) == pytest.approx(np.mean([True, False, False, True, True]))

    def test_single_samples_of_a_class_are_misclassified(self) -> None:
        assert knn_accuracy(np.random.default_rng(0).standard_normal((12, 4)), np.arange(12)) == 0.0

    def test_length_of_features_does_not_matter(self) -> None:
        features, labels = draw(1)
        lengths = np.random.default_rng(0).uniform(0.1, 10, size=(60, 1))
        assert knn_accuracy(features * lengths, labels) == knn_accuracy(features, labels)

    def test_refuses_no_neighbours(self) -> None:
        with pytest.raises(ValueError, match="k: 0 is not 1 or more"):
            knn_accuracy(*draw(2), k=0)
