"""A forest of extremely randomised trees that predicts distributions, in plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_NUM_TREES, _MIN_SAMPLES_LEAF, _MAX_FEATURES = 60, 10, 0.6


@dataclass(frozen=True, eq=False)
class QuantileForest:
    """Extremely randomised trees that keep the training outcomes of each leaf; each tree holds one dataset out.

    The nodes of all trees are in one array, and so are the outcomes of all leaves: for a few rows, all trees are walked
    together in less time than the checks of scikit-learn take for one of them, and the arrays can be stored.

    Attributes:
        held_out_groups: Number of the dataset that each tree holds out, -1 for none, (trees,).
        roots: Number of the root of each tree, (trees,).
        children: Numbers of the left and the right child of each node, -1 for a leaf, (2, nodes).
        features: Feature that each node compares, (nodes,).
        thresholds: Greatest value that goes to the left, (nodes,).
        sizes: Number of outcomes of each leaf, 0 for inner nodes, (nodes,).
        leaf_outcomes: Outcomes of the leaves in the order of the nodes, (outcomes,).
    """

    held_out_groups: NDArray[np.int64]
    roots: NDArray[np.int64]
    children: NDArray[np.int64]
    features: NDArray[np.int64]
    thresholds: FloatArray
    sizes: NDArray[np.int64]
    leaf_outcomes: FloatArray

    @classmethod
    def fit(cls, inputs: NDArray[np.float32], outcomes: FloatArray, groups: NDArray[np.int64]) -> QuantileForest:
        """Fits a forest.

        Args:
            inputs: Features of the examples, without NaN, (examples, features).
            outcomes: Outcomes to predict, (examples,).
            groups: Number of the dataset of each example, (examples,).
        """
        from sklearn.tree import ExtraTreeRegressor

        distinct = np.unique(groups)
        # A single dataset is never held out. Many datasets need more trees, so that each is held out by at least one.
        order = np.arange(max(_NUM_TREES, len(distinct)))
        held_out_groups = distinct[order % len(distinct)] if len(distinct) > 1 else np.full(_NUM_TREES, -1)
        trees, sizes, leaf_outcomes = [], [], []
        for seed, held_out_group in enumerate(held_out_groups):
            seen = groups != held_out_group
            regressor = ExtraTreeRegressor(
                min_samples_leaf=_MIN_SAMPLES_LEAF, max_features=_MAX_FEATURES, random_state=seed
            )
            leaves = regressor.fit(inputs[seen], outcomes[seen]).apply(inputs[seen])
            trees.append(regressor.tree_)
            sizes.append(np.bincount(leaves, minlength=regressor.tree_.node_count))
            leaf_outcomes.append(outcomes[seen][np.argsort(leaves, kind="stable")])
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        children = [np.stack([tree.children_left, tree.children_right]) for tree in trees]
        children = [np.where(pair < 0, pair, pair + root) for pair, root in zip(children, roots, strict=True)]
        return cls(
            held_out_groups=np.asarray(held_out_groups, dtype=np.int64),
            roots=roots,
            children=np.concatenate(children, axis=1),
            features=np.concatenate([tree.feature for tree in trees]),
            thresholds=np.concatenate([tree.threshold for tree in trees]),
            sizes=np.concatenate(sizes),
            leaf_outcomes=np.concatenate(leaf_outcomes),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> QuantileForest:
        """Returns the forest of `to_arrays`.

        Raises:
            KeyError: An array is missing.
        """
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Returns the arrays of the forest by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def outcomes(
        self, rows: NDArray[np.float32], held_out_group: int | None = None
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Returns, for each row, the outcomes in its leaves and their weights with sum 1.

        Args:
            rows: Features, (rows, features).
            held_out_group: Only trees that hold out this dataset are used; None uses all.
        """
        is_used = slice(None) if held_out_group is None else self.held_out_groups == held_out_group
        found = []
        for leaves in self._leaves(rows, self.roots[is_used]):
            sizes = self.sizes[leaves]
            skipped = self._starts[leaves] - (np.cumsum(sizes) - sizes)
            positions = np.arange(sizes.sum()) + np.repeat(skipped, sizes)
            found.append((self.leaf_outcomes[positions], np.repeat(1.0 / sizes, sizes) / len(leaves)))
        return found

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Index of the first outcome of each node, (nodes,)."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes)

    def _leaves(self, rows: NDArray[np.float32], roots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the leaf of each row in each tree, (rows, trees)."""
        nodes = np.tile(roots, (len(rows), 1))
        while True:
            row, tree = np.nonzero(self.children[0, nodes] >= 0)
            if not len(row):
                return nodes
            inner = nodes[row, tree]
            # As in scikit-learn, a feature in single precision is compared with a threshold in double precision.
            goes_right = rows[row, self.features[inner]] > self.thresholds[inner]
            nodes[row, tree] = self.children[goes_right.astype(np.int64), inner]
