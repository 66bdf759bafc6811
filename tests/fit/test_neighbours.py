from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from nbt.fit import neighbours
from nbt.fit.neighbours import knn_accuracy
from tests.fit.measure_contract import MeasureContract, draw


class TestKNN(MeasureContract):
    measure = staticmethod(knn_accuracy)
    tolerance = 1e-9

    @pytest.mark.parametrize("k", [1, 3, 7])
    def test_leaves_one_out_as_scikit_learn_does(self, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neighbours, "_BLOCK", 16)
        features, labels = draw(k, classes=2, apart=0.5)  # two classes and odd k: no ties
        right = 0
        for left_out in range(len(labels)):
            rest = np.arange(len(labels)) != left_out
            model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(features[rest], labels[rest])
            right += int(model.predict(features[left_out : left_out + 1])[0] == labels[left_out])
        assert knn_accuracy(features, labels, k) == pytest.approx(right / len(labels))

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
