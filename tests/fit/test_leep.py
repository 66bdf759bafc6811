from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nbt.fit.leep import leep, nce, nleep
from tests.fit.measure_contract import MeasureContract, draw

PROBABILITIES = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
LABELS = np.array([0, 0, 1, 1])


class TestLEEP:
    def test_agrees_with_hand_computed_values(self) -> None:
        # p(y=0 | z=0) = (0.8 + 0.6) / 1.8 = 7/9, p(y=0 | z=1) = (0.2 + 0.4) / 2.2 = 3/11.
        first, second = 7 / 9, 3 / 11
        label_probabilities = [
            0.8 * first + 0.2 * second,
            0.6 * first + 0.4 * second,
            0.3 * (1 - first) + 0.7 * (1 - second),
            0.1 * (1 - first) + 0.9 * (1 - second),
        ]
        expected = np.log(label_probabilities).mean()
        assert leep(PROBABILITIES, LABELS) == pytest.approx(expected)

    def test_bounds_are_attained(self) -> None:
        assert leep(np.eye(2)[LABELS], LABELS) == pytest.approx(0.0)
        assert leep(np.full((4, 3), 1 / 3), LABELS) == pytest.approx(-np.log(2)), "minus the entropy of the labels"

    def test_a_source_class_that_never_occurs_changes_nothing(self) -> None:
        wider = np.hstack([PROBABILITIES, np.zeros((4, 5))])
        assert leep(wider, LABELS) == pytest.approx(leep(PROBABILITIES, LABELS))

    def test_order_and_names_do_not_matter(self) -> None:
        order = [2, 0, 3, 1]
        assert leep(PROBABILITIES[order][:, ::-1], LABELS[order] * 9 - 4) == pytest.approx(leep(PROBABILITIES, LABELS))

    def test_takes_single_and_half_precision(self) -> None:
        tensor = torch.from_numpy(PROBABILITIES)
        assert leep(tensor.float(), torch.from_numpy(LABELS)) == pytest.approx(leep(PROBABILITIES, LABELS), abs=1e-6)
        assert leep(tensor.half(), LABELS) == pytest.approx(leep(PROBABILITIES, LABELS), abs=1e-3)

    @pytest.mark.parametrize(
        ("probabilities", "message"),
        [
            (np.array([[0.5, 0.4]] * 4), "source_probs: every row must sum to one, row 0 sums to 0.9"),
            (np.array([[1.5, -0.5]] * 4), "source_probs: probabilities must be 0 or more, the smallest is -0.5"),
            (np.array([[np.nan, 1.0]] * 4), "source_probs: 4 values are NaN"),
            (np.array([0.5, 0.5, 0.5, 0.5]), "source_probs: expected a matrix"),
        ],
    )
    def test_refuses_invalid_probabilities(self, probabilities: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            leep(probabilities, LABELS)

    def test_refuses_labels_that_do_not_match(self) -> None:
        with pytest.raises(ValueError, match="labels: 3 labels for 4 samples"):
            leep(PROBABILITIES, LABELS[:3])
        with pytest.raises(ValueError, match="labels: at least 2 classes"):
            leep(PROBABILITIES, np.zeros(4, dtype=int))


class TestNCE:
    def test_agrees_with_hand_computed_values(self) -> None:
        # Source class 5 has the labels 0, 0, 1, source class 9 has the label 1.
        entropy = 3 / 4 * -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
        assert nce(np.array([5, 5, 5, 9]), np.array([0, 0, 1, 1])) == pytest.approx(-entropy)

    def test_bounds_are_attained(self) -> None:
        assert nce(LABELS, LABELS) == pytest.approx(0.0)
        assert nce(np.zeros(4, dtype=int), LABELS) == pytest.approx(-np.log(2))

    def test_refuses_wrong_labels(self) -> None:
        with pytest.raises(ValueError, match="labels: 3 labels for 4 samples"):
            nce(LABELS, LABELS[:3])
        with pytest.raises(ValueError, match="source_labels: expected whole numbers"):
            nce(PROBABILITIES[:, 0], LABELS)
        with pytest.raises(ValueError, match="labels: at least 2 classes"):
            nce(LABELS, np.zeros(4, dtype=int))


class TestNLEEP(MeasureContract):
    measure = staticmethod(nleep)

    def test_stays_within_its_bounds(self) -> None:
        features, labels = draw(0, apart=8.0)
        entropy = -(p := np.bincount(labels) / len(labels)) @ np.log(p)
        assert -entropy - 1e-9 <= nleep(features, labels) <= 0.0
        assert nleep(features, labels) > -0.05, "clusters that are far apart determine the class"
        assert nleep(np.zeros((60, 3)), labels) == pytest.approx(-entropy)

    def test_depends_on_the_seed(self) -> None:
        features, labels = draw(1, 200)
        assert nleep(features, labels, seed=1) == nleep(features, labels, seed=1)
        assert len({nleep(features, labels, seed=seed) for seed in range(5)}) > 1

    def test_refuses_no_clusters(self) -> None:
        with pytest.raises(ValueError, match="per_class: 0 is not 1 or more"):
            nleep(*draw(2), per_class=0)
