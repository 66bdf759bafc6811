from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbt.data.splits import (
    TEST_SHARE,
    Pools,
    Split,
    check_pools,
    limit_shots,
    make_pools,
    make_split,
    validation_share,
    validation_standard_error,
)
from nbt.errors import UsageError

seeds = st.integers(0, 2**63 - 1)
class_sizes = st.lists(st.integers(4, 60), min_size=2, max_size=8)


def labels_of(counts: list[int], shuffle: int | None = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    return labels if shuffle is None else np.random.default_rng(shuffle).permutation(labels)


def names_of(counts: list[int]) -> list[str]:
    return [f"class {label}" for label in range(len(counts))]


def no_roles(labels: np.ndarray) -> np.ndarray:
    return np.full(len(labels), "", dtype="<U5")


def counts_in(index: np.ndarray, labels: np.ndarray) -> list[int]:
    return np.bincount(labels[index], minlength=labels.max() + 1).tolist()


def assert_partition(split: Split, n: int) -> None:
    together = np.concatenate([split.train, split.val, split.test])
    assert sorted(together.tolist()) == list(range(n))
    for part in (split.train, split.val, split.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@settings(deadline=None)
@given(class_sizes, seeds, st.integers(0, 9))
def test_splits_are_disjoint_exhaustive_stratified_and_reproducible(counts: list[int], seed: int, order: int) -> None:
    labels = labels_of(counts, order)
    pools = make_pools(labels, no_roles(labels), names_of(counts))
    split = make_split(pools, labels, seed)
    assert_partition(split, len(labels))
    share = validation_share(len(pools.train))
    for label, count in enumerate(counts):
        n_test, n_val = counts_in(split.test, labels)[label], counts_in(split.val, labels)[label]
        assert abs(n_test - TEST_SHARE * count) <= 1 and n_test >= 1
        assert abs(n_val - share * (count - n_test)) <= 1 and n_val >= 1
        assert counts_in(split.train, labels)[label] >= 1
    again = make_split(make_pools(labels, no_roles(labels), names_of(counts)), labels, seed)
    for part, part_again in zip(
        (split.train, split.val, split.test), (again.train, again.val, again.test), strict=True
    ):
        np.testing.assert_array_equal(part, part_again)


@settings(deadline=None)
@given(class_sizes, seeds, seeds)
def test_the_test_images_do_not_depend_on_the_seed(counts: list[int], seed: int, other: int) -> None:
    labels = labels_of(counts)
    pools = make_pools(labels, no_roles(labels), names_of(counts))
    np.testing.assert_array_equal(make_split(pools, labels, seed).test, make_split(pools, labels, other).test)
    np.testing.assert_array_equal(limit_shots(pools, labels, 2, seed).test, pools.test)


def test_the_seed_changes_the_validation_images() -> None:
    labels = labels_of([50, 50])
    pools = make_pools(labels, no_roles(labels), ["a", "b"])
    assert set(make_split(pools, labels, 0).val.tolist()) != set(make_split(pools, labels, 1).val.tolist())


@settings(deadline=None)
@given(class_sizes, seeds, st.integers(1, 14))
def test_folds_validate_every_image_once_before_any_twice(counts: list[int], seed: int, n_folds: int) -> None:
    labels = labels_of(counts)
    pools = make_pools(labels, no_roles(labels), names_of(counts))
    first = make_split(pools, labels, seed)
    validated = np.zeros(len(labels), dtype=int)
    for fold in range(n_folds):
        split = make_split(pools, labels, seed, fold)
        assert_partition(split, len(labels))
        assert counts_in(split.val, labels) == counts_in(first.val, labels)
        assert split.test.tolist() == first.test.tolist()
        validated[split.val] += 1
        for label in range(len(counts)):
            of_class = validated[pools.train[labels[pools.train] == label]]
            assert of_class.max() - of_class.min() <= 1
    again = make_split(pools, labels, seed, n_folds - 1)
    assert again.val.tolist() == split.val.tolist()


@pytest.mark.parametrize("fold", [0, 1, 5])
def test_fold_0_is_the_split_of_the_seed_and_official_validation_images_are_in_every_fold(fold: int) -> None:
    labels = np.tile([0, 1], 20).astype(np.int64)
    roles = np.array(["train"] * 20 + ["val"] * 20, dtype="<U5")
    pools = make_pools(labels, roles, ["a", "b"])
    assert make_split(pools, labels, 3, fold).val.tolist() == list(range(20, 40))
    drawn = make_pools(labels, no_roles(labels), ["a", "b"])
    is_first = make_split(drawn, labels, 3, fold).val.tolist() == make_split(drawn, labels, 3).val.tolist()
    assert is_first == (fold == 0)


def test_test_images_of_a_class_do_not_depend_on_later_classes() -> None:
    all_labels, first_labels = labels_of([30, 20, 40], None), labels_of([30, 20], None)
    test = make_pools(all_labels, no_roles(all_labels), ["a", "b", "c"]).test
    first_test = make_pools(first_labels, no_roles(first_labels), ["a", "b"]).test
    assert test[test < 50].tolist() == first_test.tolist()


def test_official_splits_are_kept() -> None:
    labels = labels_of([9, 9])
    roles = np.array((["train"] * 4 + [""] * 2 + ["val"] * 6 + ["test"] * 6), dtype="<U5")
    labels[:12] = [0, 1] * 6
    pools = make_pools(labels, roles, ["a", "b"])
    assert pools.val is not None
    assert [part.tolist() for part in (pools.train, pools.val, pools.test)] == [
        list(range(6)),
        list(range(6, 12)),
        list(range(12, 18)),
    ]
    for seed in (0, 1):
        split = make_split(pools, labels, seed)
        assert split.val.tolist() == list(range(6, 12)) and split.train.tolist() == list(range(6))


def test_with_an_official_test_split_validation_is_drawn() -> None:
    labels = np.tile([0, 1], 20).astype(np.int64)
    roles = np.array(["train"] * 20 + ["test"] * 20, dtype="<U5")
    pools = make_pools(labels, roles, ["a", "b"])
    split = make_split(pools, labels, 3)
    assert pools.val is None and split.test.tolist() == list(range(20, 40))
    assert len(split.val) == 4 and len(split.train) == 16 and set(split.val.tolist()) <= set(range(20))


def test_with_an_official_validation_split_test_is_drawn() -> None:
    labels = np.tile([0, 1], 20).astype(np.int64)
    roles = np.array(["train"] * 20 + ["val"] * 20, dtype="<U5")
    pools = make_pools(labels, roles, ["a", "b"])
    assert pools.val is not None and pools.val.tolist() == list(range(20, 40))
    assert len(pools.test) == 4 and set(pools.test.tolist()) <= set(range(20))
    assert len(pools.train) == 16


def test_classes_too_small_to_divide_stay_in_training() -> None:
    labels = labels_of([9, 2, 1], None)
    split = make_split(make_pools(labels, no_roles(labels), ["a", "b", "c"]), labels, 0)
    assert [counts_in(part, labels) for part in (split.train, split.val)] == [[5, 1, 1], [2, 1, 0]]
    assert counts_in(split.test, labels) == [2, 0, 0]
    assert_partition(split, 12)


@pytest.mark.parametrize(
    ("counts", "roles", "message"),
    [
        ([3, 0], "", "only class 'class 0' has images to train on; a task needs two or more"),
        ([0, 0], "test", "no class has images to train on"),
        ([1, 1], "test", "no class has a second image to validate on"),
        ([2, 2], "", "no image is left to test on; a class needs 3 or more images"),
        ([1, 1], "val", "no image is left to test on"),
    ],
)
def test_too_few_images_for_a_task(counts: list[int], roles: str, message: str) -> None:
    extra = roles.split()
    labels = np.concatenate([labels_of(counts, None), np.tile([0, 1], len(extra))]).astype(np.int64)
    official = np.array([""] * sum(counts) + [role for role in extra for _ in range(2)], dtype="<U5")
    with pytest.raises(UsageError) as error:
        make_pools(labels, official, ["class 0", "class 1"])
    assert str(error.value).startswith(message)


def test_the_minimum_number_of_images_is_accepted() -> None:
    labels = labels_of([3, 3])
    split = make_split(make_pools(labels, no_roles(labels), ["a", "b"]), labels, 0)
    assert [counts_in(part, labels) for part in (split.train, split.val, split.test)] == [[1, 1]] * 3


@settings(deadline=None)
@given(class_sizes, st.integers(2, 12), seeds)
def test_shots_limit_the_labelled_images_per_class(counts: list[int], shots: int, seed: int) -> None:
    labels = labels_of(counts)
    pools = make_pools(labels, no_roles(labels), names_of(counts))
    few = limit_shots(pools, labels, shots, seed)
    available = counts_in(pools.train, labels)
    assert counts_in(few.train, labels) == [min(shots, count) for count in available]
    assert set(few.train.tolist()) <= set(pools.train.tolist())
    np.testing.assert_array_equal(limit_shots(pools, labels, shots, seed).train, few.train)
    split = make_split(few, labels, seed)
    assert min(counts_in(split.train, labels)) >= 1 and min(counts_in(split.val, labels)) >= 1


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 30), st.integers(2, 40), seeds)
def test_shots_are_shared_with_official_validation(n_train: int, n_val: int, shots: int, seed: int) -> None:
    labels = np.tile([0, 1], n_train + n_val + 1).astype(np.int64)
    ends = np.cumsum([2 * n_train, 2 * n_val, 2])
    index = np.arange(ends[-1])
    pools = Pools(index[: ends[0]], index[ends[0] : ends[1]], index[ends[1] :])
    few = limit_shots(pools, labels, shots, seed)
    assert few.val is not None
    for label in (0, 1):
        train, val = counts_in(few.train, labels)[label], counts_in(few.val, labels)[label]
        assert 1 <= train <= n_train and 1 <= val <= n_val
        assert train + val <= shots
    assert few.test is pools.test


def test_shots_depend_on_the_seed_and_must_be_2_or_more() -> None:
    labels = labels_of([30, 30])
    pools = make_pools(labels, no_roles(labels), ["a", "b"])
    assert limit_shots(pools, labels, 5, 0).train.tolist() != limit_shots(pools, labels, 5, 1).train.tolist()
    with pytest.raises(UsageError, match="--shots 1: a class needs 2"):
        limit_shots(pools, labels, 1, 0)


@settings(deadline=None)
@given(class_sizes, seeds)
def test_merging_validation_moves_it_to_train(counts: list[int], seed: int) -> None:
    labels = labels_of(counts)
    split = make_split(make_pools(labels, no_roles(labels), names_of(counts)), labels, seed)
    merged = split.merge_validation()
    assert_partition(merged, len(labels))
    assert len(merged.val) == 0
    assert set(merged.train.tolist()) == {*split.train.tolist(), *split.val.tolist()}
    np.testing.assert_array_equal(merged.test, split.test)


def test_check_pools_detects_missing_images() -> None:
    labels = np.array([0, 0, 1, 0, 1], dtype=np.int64)
    index = np.arange(5)
    with pytest.raises(UsageError, match="no image is left to test on"):
        check_pools(Pools(index, None, index[:0]), labels, ["a", "b"])
    with pytest.raises(UsageError, match="only class 'a' has images to train on"):
        check_pools(Pools(index[:2], None, index[3:]), labels, ["a", "b"])
    check_pools(Pools(index, None, index[:1]), labels, ["a", "b"])


def test_the_validation_share_is_larger_for_fewer_images() -> None:
    assert [validation_share(n) for n in (100, 1600, 2000, 4000, 50000)] == [0.25, 0.25, 0.2, 0.1, 0.1]


def test_standard_error_of_an_accuracy() -> None:
    assert validation_standard_error(0.5, 400) == pytest.approx(0.025)
    assert validation_standard_error(0.9, 100) == pytest.approx(0.03)
    assert math.isinf(validation_standard_error(0.5, 0))


def test_a_thinned_split_keeps_the_share_of_the_validation_images() -> None:
    split = Split(np.arange(0, 80), np.arange(80, 100), np.arange(100, 130))
    thinned = split.thin_out(8)
    assert (len(thinned.train), len(thinned.val), len(thinned.test)) == (8, 2, 30)
    assert (thinned.train[0], thinned.train[-1]) == (0, 79), "from all of them, not the first classes only"
    assert set(thinned.train) <= set(split.train)
    assert split.thin_out(1000).train.tolist() == split.train.tolist()
