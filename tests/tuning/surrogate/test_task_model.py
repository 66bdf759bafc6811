from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.space.encoding import encode
from nbt.tuning.surrogate.logit_score import LOGIT_SCORE_UNIT, MAX_GAP_TO_BEST
from nbt.tuning.surrogate.task_model import TaskModel, target_from_header, task_similarity
from nbt.tuning.target import Target
from tests.tuning.benchmark.tables import diverge, make_table
from tests.tuning.synthetic import BIRDS, LENGTH, draw, facts, profile, source_tables, table, target, transferred_priors


@pytest.fixture(scope="module")
def birds() -> TaskModel:
    model = transferred_priors().models_by_table[0]
    assert model is not None
    return model


class TestTaskModel:
    def test_it_ranks_settings_that_were_not_recorded(self, birds: TaskModel) -> None:
        from scipy.stats import spearmanr

        new = draw(200, seed=77)
        assert spearmanr(birds.predict(encode(new)), [BIRDS.true_logit(one) for one in new]).statistic > 0.7

    def test_the_median_setting_is_zero_and_the_unit_is_that_of_the_logit_score(self, birds: TaskModel) -> None:
        predicted = birds.predict(birds.process.points)
        assert np.median(predicted) == pytest.approx(0.0, abs=1e-9)
        true_logit = np.array(
            [BIRDS.true_logit(one) for one in dict.fromkeys(run.settings for run in source_tables()[0].runs)]
        )
        good = true_logit > np.median(true_logit)
        assert np.ptp(predicted[good]) == pytest.approx(np.ptp(true_logit[good]) / LOGIT_SCORE_UNIT, rel=0.4)

    def test_the_best_come_first(self, birds: TaskModel) -> None:
        true_logit = [BIRDS.true_logit(one) for one in birds.best]
        everything = sorted((BIRDS.true_logit(run.settings) for run in source_tables()[0].runs), reverse=True)
        assert len(birds.best) == 12 == len(set(birds.best))
        assert np.mean(true_logit) > np.quantile(everything, 0.75)
        assert max(true_logit[:4]) >= everything[5]

    def test_the_header_is_that_of_the_table(self, birds: TaskModel) -> None:
        assert birds.header is source_tables()[0].header

    def test_runs_of_a_setting_are_averaged(self) -> None:
        made = make_table(20)
        model = TaskModel.of(made)
        assert model is not None
        assert len(model.process.values) == 20 < len(made.runs)

    def test_too_few_settings_give_no_model(self) -> None:
        assert TaskModel.of(make_table(11)) is None
        assert TaskModel.of(make_table(12)) is not None

    def test_scores_of_failed_settings_are_floored(self) -> None:
        """Settings that fail must not distort the scale that distinguishes good ones."""
        broken, worse = (
            make_table(40, change=lambda run, end=end: diverge(run) if run.setting % 4 == end else run)
            for end in (1, 2)
        )
        for one in (broken, worse):
            model = TaskModel.of(one)
            assert model is not None
            lowest = model.process.values.min()
            assert (model.process.values == lowest).sum() >= 10
            assert np.ptp(model.process.values) <= MAX_GAP_TO_BEST + 3

    def test_all_runs_diverged(self) -> None:
        model = TaskModel.of(make_table(12, change=diverge))
        assert model is not None
        assert model.predict(encode(draw(3))) == pytest.approx(np.zeros(3), abs=1e-6)

    def test_only_validation_accuracies_are_used(self) -> None:
        blind = RecordedBlind.of(source_tables()[0])
        model, known = TaskModel.of(blind), transferred_priors().models_by_table[0]
        assert model is not None and known is not None
        points = encode(draw(10))
        assert model.predict(points) == pytest.approx(known.predict(points), abs=1e-9)


class RecordedBlind:
    """A table with meaningless test accuracies."""

    @staticmethod
    def of(known):  # type: ignore[no-untyped-def]
        runs = [
            dataclasses.replace(
                run, curve=tuple(dataclasses.replace(one, watched_accuracy=0.123 * one.epoch) for one in run.curve)
            )
            for run in known.runs
        ]
        return dataclasses.replace(known, runs=runs)


def test_target_from_header() -> None:
    found = target_from_header(table(BIRDS, 1).header)
    assert (found.epochs, found.validation_images, found.classes) == (LENGTH, 300, 10.0)
    assert found.pretraining_advantage == pytest.approx(0.5 / 0.9)


SHARES = st.floats(0.0, 1.0)
COUNTS = st.integers(1, 10_000)
TARGETS = st.builds(
    lambda own, random, images, classes: target(own, random, train_images=images, classes=classes),
    *(SHARES, SHARES, COUNTS, COUNTS),
)
PARTLY = st.builds(
    lambda own, random, images, known: Target.of(
        facts(train_images=images), profile(own, random) if known else None, LENGTH
    ),
    *(SHARES, SHARES, st.one_of(st.none(), COUNTS), st.booleans()),
)


class TestSimilarity:
    @given(st.one_of(TARGETS, PARTLY), st.one_of(TARGETS, PARTLY))
    def test_it_is_symmetric_and_between_zero_and_one(self, one: Target, other: Target) -> None:
        assert task_similarity(one, other) == pytest.approx(task_similarity(other, one))
        assert 0.0 <= task_similarity(one, other) <= 1.0

    @given(TARGETS)
    def test_it_is_one_with_itself(self, one: Target) -> None:
        assert task_similarity(one, one) == 1.0

    def test_a_missing_measure_counts_as_one_scale(self) -> None:
        known, nothing = target(), Target(epochs=LENGTH)
        assert (
            task_similarity(nothing, nothing)
            == pytest.approx(np.exp(-1.0))
            == pytest.approx(task_similarity(known, nothing))
        )

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
        assert 1.0 > task_similarity(target(), near) > 0.9 > task_similarity(target(), far)

    def test_harmful_pretraining_counts_as_no_advantage(self) -> None:
        assert task_similarity(target(0.1, 0.3), target(0.1, 0.2)) == 1.0
