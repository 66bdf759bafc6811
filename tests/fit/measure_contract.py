"""Properties that every measure of features and labels must have; the tests of each measure inherit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def draw(seed: int, n: int = 60, dim: int = 8, classes: int = 3, *, apart: float = 1.5) -> Data:
    """Returns features around one centre per class, and labels that all occur at least twice."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(classes).repeat(2), rng.integers(classes, size=n)])[:n])
    centres = apart * rng.standard_normal((classes, dim))
    return centres[labels] + rng.standard_normal((n, dim)) + 0.5, labels


class MeasureContract:
    """Tests of a measure; subclasses set `measure` (a static method of features and labels) and its properties."""

    measure: ClassVar[Callable[..., float]]
    rotation_invariant: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-6
    lone_sample: ClassVar[str] = "value"
    noise_is_worse: ClassVar[bool] = True

    @pytest.mark.parametrize("seed", range(6))
    def test_order_of_samples_does_not_matter(self, seed: int) -> None:
        features, labels = draw(seed)
        order = np.random.default_rng(seed + 1).permutation(len(labels))
        assert self.measure(features[order], labels[order]) == pytest.approx(
            self.measure(features, labels), abs=self.tolerance
        )

    @pytest.mark.parametrize("seed", range(6))
    def test_names_of_classes_do_not_matter(self, seed: int) -> None:
        features, labels = draw(seed)
        renamed = np.array([40, -7, 12])[labels]
        assert self.measure(features, renamed) == pytest.approx(self.measure(features, labels), abs=self.tolerance)

    @pytest.mark.parametrize("seed", range(6))
    def test_rotation_of_features_does_not_matter(self, seed: int) -> None:
        if not self.rotation_invariant:
            pytest.skip("not implied by the definition")
        features, labels = draw(seed)
        rotation, _ = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((8, 8)))
        assert self.measure(features @ rotation, labels) == pytest.approx(
            self.measure(features, labels), abs=self.tolerance
        )

    @pytest.mark.parametrize(("n", "dim"), [(60, 8), (20, 20), (12, 50), (200, 3)])
    def test_finite_in_every_regime(self, n: int, dim: int) -> None:
        assert np.isfinite(self.measure(*draw(0, n, dim)))

    @pytest.mark.parametrize("n", [60, 12])
    def test_finite_with_constant_and_repeated_columns(self, n: int) -> None:
        features, labels = draw(1, n)
        features = np.hstack([features, np.full((n, 2), 3.0), features[:, :2], np.zeros((n, 1))])
        assert np.isfinite(self.measure(features, labels))

    def test_finite_for_constant_features(self) -> None:
        _, labels = draw(2)
        for value in (0.0, 2.5):
            assert np.isfinite(self.measure(np.full((60, 4), value), labels))

    def test_separated_classes_are_better_than_noise(self) -> None:
        if not self.noise_is_worse:
            pytest.skip("not implied by the definition")
        features, labels = draw(3, apart=4.0)
        noise = np.random.default_rng(0).standard_normal(features.shape) * features.std()
        assert self.measure(features, labels) > self.measure(noise, labels)

    def test_single_precision_agrees(self) -> None:
        features, labels = draw(4)
        assert self.measure(features.astype(np.float32), labels) == pytest.approx(
            self.measure(features, labels), rel=1e-3, abs=1e-3
        )

    def test_tensors_are_accepted(self) -> None:
        features, labels = draw(5)
        tensors = torch.from_numpy(features).requires_grad_(), torch.from_numpy(labels)
        assert self.measure(*tensors) == pytest.approx(self.measure(features, labels), abs=self.tolerance)
        half = torch.from_numpy(features).bfloat16()
        assert np.isfinite(self.measure(half, labels))

    def test_arguments_are_not_modified(self) -> None:
        features, labels = draw(6)
        before = features.copy(), labels.copy()
        self.measure(features, labels)
        assert np.array_equal(features, before[0])
        assert np.array_equal(labels, before[1])

    def test_deterministic(self) -> None:
        assert self.measure(*draw(7)) == self.measure(*draw(7))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_refused(self, bad: float) -> None:
        features, labels = draw(8)
        features[3, 2] = bad
        with pytest.raises(ValueError, match=r"features: 1 values are NaN or infinite, the first in row 3, column 2"):
            self.measure(features, labels)

    @pytest.mark.parametrize("shape", [(60,), (60, 2, 2), (0, 4), (60, 0)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="features: expected a matrix"):
            self.measure(np.zeros(shape), np.arange(60) % 3)

    def test_one_class_is_refused(self) -> None:
        with pytest.raises(ValueError, match="labels: at least 2 classes are needed, got 1"):
            self.measure(draw(9)[0], np.ones(60, dtype=int))

    def test_other_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="labels: 59 labels for 60 samples"):
            self.measure(draw(9)[0], np.arange(59) % 3)

    @pytest.mark.parametrize("labels", [np.arange(60) / 7, np.array(["a", "b"] * 30)])
    def test_labels_that_are_not_integers_are_refused(self, labels: Any) -> None:
        with pytest.raises(ValueError, match="labels: expected whole numbers"):
            self.measure(draw(9)[0], labels)

    def test_one_sample_per_class(self) -> None:
        features, _ = draw(10, 12)
        if self.lone_sample == "value":
            assert np.isfinite(self.measure(features, np.arange(12)))
        else:
            with pytest.raises(ValueError, match=self.lone_sample):
                self.measure(features, np.arange(12))
