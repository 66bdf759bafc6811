from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.surrogate.task_similarity import similarities, target_from_header, task_measures, task_similarity
from nbt.tuning.target import Target
from tests.tuning.synthetic import BIRDS, LENGTH, facts, profile, table, target


def test_target_from_header() -> None:
    created = target_from_header(table(BIRDS, 1).header)
    assert (created.epochs, created.validation_images, created.classes) == (LENGTH, 300, 10.0)
    assert created.advantage == pytest.approx(0.5 / 0.9)


SHARES = st.floats(0.0, 1.0)
COUNTS = st.integers(1, 10_000)
TARGETS = st.builds(
    lambda pretrained, random, images, classes: target(pretrained, random, train_images=images, classes=classes),
    *(SHARES, SHARES, COUNTS, COUNTS),
)
INCOMPLETE_TARGETS = st.builds(
    lambda pretrained, random, images, has_profile: Target.of(
        facts(train_images=images), profile(pretrained, random) if has_profile else None, LENGTH
    ),
    *(SHARES, SHARES, st.one_of(st.none(), COUNTS), st.booleans()),
)


class TestSimilarity:
    @given(st.one_of(TARGETS, INCOMPLETE_TARGETS), st.one_of(TARGETS, INCOMPLETE_TARGETS))
    def test_it_is_symmetric_and_between_zero_and_one(self, first: Target, second: Target) -> None:
        assert task_similarity(first, second) == pytest.approx(task_similarity(second, first))
        assert 0.0 <= task_similarity(first, second) <= 1.0

    @given(TARGETS)
    def test_it_is_one_with_itself(self, any_target: Target) -> None:
        assert task_similarity(any_target, any_target) == 1.0

    def test_a_missing_measure_has_a_typical_value(self) -> None:
        bare = Target(epochs=LENGTH)
        typical, extreme = (target(*probes, train_images=300) for probes in ((0.6, 0.2), (0.98, 0.9)))
        assert task_similarity(bare, bare) == 1.0
        assert task_similarity(bare, typical) > 0.95 > task_similarity(bare, extreme)

    @given(st.lists(st.one_of(TARGETS, INCOMPLETE_TARGETS), min_size=2, max_size=6))
    def test_it_is_a_covariance(self, targets: list[Target]) -> None:
        measures = np.array([task_measures(found) for found in targets])
        assert np.linalg.eigvalsh(similarities(measures, measures)).min() > -1e-9

    @pytest.mark.parametrize(
        ("near", "far"),
        [
            (target(0.65, 0.1), target(0.2, 0.1)),
            (target(0.6, 0.15), target(0.6, 0.5)),
            (target(train_images=700), target(train_images=6000)),
            (target(classes=12, train_images=720), target(classes=200, train_images=12_000)),
        ],
    )
    def test_it_decreases_with_distance(self, near: Target, far: Target) -> None:
        assert 1.0 > task_similarity(target(), near) > task_similarity(target(), far)

    def test_harmful_pretraining_counts_as_no_advantage(self) -> None:
        assert task_similarity(target(0.1, 0.3), target(0.1, 0.2)) == 1.0

    def test_the_architecture_is_that_of_the_profile(self) -> None:
        known = profile(0.6, 0.1) | {"facts": {"backbone": "timm:resnet18(drop_rate=0.1)"}}
        assert Target.of(facts(), known, LENGTH).architecture == "timm:resnet18"
        assert Target.of(facts(), None, LENGTH).architecture == ""
