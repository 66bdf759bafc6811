from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from nbt.fit.emd import earth_movers_distance, emd_similarity

RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.standard_normal((7, 3)), RNG.standard_normal((5, 3)) + 1.0
SUPPLY, DEMAND = np.array([3, 1, 4, 1, 5, 9, 2]), np.array([6, 5, 3, 5, 8])


def test_agrees_with_the_dual_linear_programme() -> None:
    """The minimum transport cost equals the maximum of the dual programme, which is solved separately."""
    supply, demand, costs = SUPPLY / SUPPLY.sum(), DEMAND / DEMAND.sum(), cdist(SOURCE, TARGET)
    pairs = [(i, j) for i in range(7) for j in range(5)]
    rows = np.array([np.concatenate([np.eye(7)[i], np.eye(5)[j]]) for i, j in pairs])
    dual = linprog(-np.concatenate([supply, demand]), A_ub=rows, b_ub=costs.ravel(), bounds=(None, None))
    expected = np.exp(-0.01 * -dual.fun)
    assert emd_similarity(SOURCE, SUPPLY, TARGET, DEMAND) == pytest.approx(expected, abs=1e-9)


def test_equal_weights_give_an_assignment() -> None:
    costs = cdist(SOURCE[:5], TARGET)
    best = costs[linear_sum_assignment(costs)].mean()
    assert earth_movers_distance(costs, np.full(5, 0.2), np.full(5, 0.2)) == pytest.approx(best)


def test_agrees_with_the_area_between_distributions_in_one_dimension() -> None:
    source, target = SOURCE[:, :1], TARGET[:, :1]
    expected = wasserstein_distance(source.ravel(), target.ravel(), SUPPLY, DEMAND)
    assert -np.log(emd_similarity(source, SUPPLY, target, DEMAND, gamma=1.0)) == pytest.approx(expected)


def test_equal_distributions_have_distance_0() -> None:
    order = [3, 1, 0, 6, 2, 5, 4]
    assert emd_similarity(SOURCE, SUPPLY, SOURCE[order], 10 * SUPPLY[order]) == pytest.approx(1.0)
    assert emd_similarity(SOURCE, SUPPLY, TARGET, DEMAND) == pytest.approx(
        emd_similarity(TARGET, DEMAND, SOURCE, SUPPLY)
    )


def test_one_class_and_classes_without_images() -> None:
    gap = float(SUPPLY / SUPPLY.sum() @ cdist(SOURCE, TARGET[:1]).ravel())
    assert emd_similarity(SOURCE, SUPPLY, TARGET[:1], [3], gamma=1.0) == pytest.approx(np.exp(-gap))
    empty = np.where(np.arange(5) == 0, 7, 0)
    assert emd_similarity(SOURCE, SUPPLY, TARGET, empty, gamma=1.0) == pytest.approx(np.exp(-gap))


def test_many_classes() -> None:
    rng = np.random.default_rng(1)
    value = emd_similarity(rng.standard_normal((300, 8)), np.ones(300), rng.standard_normal((60, 8)), np.ones(60))
    assert 0.9 < value < 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_counts": [1, 2]}, r"source_counts: expected one number for each of 7 classes, got shape \(2,\)"),
        ({"target_counts": [0] * 5}, "target_counts: images per class must be finite, 0 or more and not all 0"),
        ({"target_counts": [-1, 2, 3, 4, 5]}, "target_counts: images per class must be finite"),
        ({"source_means": np.full((7, 3), np.nan)}, "source_means: 21 values are NaN"),
        ({"target_means": np.zeros((5, 2))}, "target_means: 2 features, but source_means have 3"),
        ({"gamma": -1.0}, "gamma: -1.0 is not 0 or more"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    arguments = {"source_means": SOURCE, "source_counts": SUPPLY, "target_means": TARGET, "target_counts": DEMAND}
    with pytest.raises(ValueError, match=message):
        emd_similarity(**{**arguments, **changes})
