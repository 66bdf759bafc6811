import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.tree import ExtraTreeRegressor

from nbt.tuning.pruners import quantile_forest
from nbt.tuning.pruners.quantile_forest import QuantileForest


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    monkeypatch.setattr(quantile_forest, "_NUM_TREES", 5)
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 4)).astype(np.float32), rng.normal(size=200), rng.integers(3, size=200)


@pytest.mark.parametrize(("held_out", "trees"), [(None, [0, 1, 2, 3, 4]), (1, [1, 4])])
def test_a_row_has_the_outcomes_of_its_leaves_in_the_trees_of_scikit_learn(examples, held_out, trees) -> None:
    inputs, outcomes, groups = examples
    forest = QuantileForest.fit(inputs, outcomes, groups)
    rows = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    rows[0, 0] = forest.thresholds[0]  # on the border of a node
    for row, (values, weights) in zip(rows, forest.outcomes(rows, held_out), strict=True):
        expected = []
        for seed in trees:
            seen = groups != seed % 3
            tree = ExtraTreeRegressor(min_samples_leaf=10, max_features=0.6, random_state=seed)
            leaves = tree.fit(inputs[seen], outcomes[seen]).apply(inputs[seen])
            expected.append(outcomes[seen][leaves == tree.apply(row[None])[0]])
        np.testing.assert_array_equal(values, np.concatenate(expected))
        np.testing.assert_allclose(weights, np.concatenate([[1 / len(e) / len(trees)] * len(e) for e in expected]))


def test_the_arrays_make_the_same_forest(examples) -> None:
    forest = QuantileForest.fit(*examples)
    copy = QuantileForest.from_arrays(forest.to_arrays())
    rows = examples[0][:7]
    for (values, weights), (expected, expected_weights) in zip(copy.outcomes(rows), forest.outcomes(rows), strict=True):
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(weights, expected_weights)


def test_equal_outcomes_give_trees_of_one_leaf(examples) -> None:
    inputs, _, groups = examples
    (values, weights), *_ = QuantileForest.fit(inputs, np.ones(200), groups).outcomes(inputs[:1])
    assert set(values) == {1.0} and weights.sum() == pytest.approx(1.0)


def test_missing_arrays_are_a_key_error(examples) -> None:
    arrays = QuantileForest.fit(*examples).to_arrays()
    del arrays["roots"]
    with pytest.raises(KeyError, match="roots"):
        QuantileForest.from_arrays(arrays)
