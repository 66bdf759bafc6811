from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.encoding import encode
from nbt.tuning.surrogate.logit_score import LOGIT_SCORE_UNIT, MAX_GAP_TO_BEST
from nbt.tuning.surrogate.task_model import TaskModel, table_weights, target_from_header, task_similarity
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
        assert spearmanr(birds.predict(encode(new)), [BIRDS.true_logit(recipe) for recipe in new]).statistic > 0.7

    def test_the_median_setting_is_zero_and_the_unit_is_that_of_the_logit_score(self, birds: TaskModel) -> None:
        predicted = birds.predict(birds.process.points)
        assert np.median(predicted) == pytest.approx(0.0, abs=1e-9)
        true_logit = np.array(
            [BIRDS.true_logit(recipe) for recipe in dict.fromkeys(run.settings for run in source_tables()[0].runs)]
        )
        good = true_logit > np.median(true_logit)
        assert np.ptp(predicted[good]) == pytest.approx(np.ptp(true_logit[good]) / LOGIT_SCORE_UNIT, rel=0.4)

    def test_the_best_come_first(self, birds: TaskModel) -> None:
        best_logits = [BIRDS.true_logit(recipe) for recipe in birds.best]
        all_logits = sorted((BIRDS.true_logit(run.settings) for run in source_tables()[0].runs), reverse=True)
        assert len(birds.best) == 12 == len(set(birds.best))
        assert np.mean(best_logits) > np.quantile(all_logits, 0.75)
        assert max(best_logits[:4]) >= all_logits[5]

    def test_the_header_is_that_of_the_table(self, birds: TaskModel) -> None:
        assert birds.header is source_tables()[0].header

    def test_runs_of_a_setting_are_averaged(self) -> None:
        recorded = make_table(20)
        model = TaskModel.of(recorded)
        assert model is not None
        assert len(model.process.values) == 20 < len(recorded.runs)

    def test_too_few_settings_give_no_model(self) -> None:
        assert TaskModel.of(make_table(11)) is None
        assert TaskModel.of(make_table(12)) is not None

    def test_scores_of_failed_settings_are_floored(self) -> None:
        """Settings that fail must not distort the scale that distinguishes good ones."""
        for remainder in (1, 2):
            recorded = make_table(
                40, change=lambda run, remainder=remainder: diverge(run) if run.setting % 4 == remainder else run
            )
            model = TaskModel.of(recorded)
            assert model is not None
            lowest = model.process.values.min()
            assert (model.process.values == lowest).sum() >= 10
            assert np.ptp(model.process.values) <= MAX_GAP_TO_BEST + 3

    def test_all_runs_diverged(self) -> None:
        model = TaskModel.of(make_table(12, change=diverge))
        assert model is not None
        assert model.predict(encode(draw(3))) == pytest.approx(np.zeros(3), abs=1e-6)

    def test_only_validation_accuracies_are_used(self) -> None:
        changed = with_meaningless_test_accuracies(source_tables()[0])
        model, original = TaskModel.of(changed), transferred_priors().models_by_table[0]
        assert model is not None and original is not None
        points = encode(draw(10))
        assert model.predict(points) == pytest.approx(original.predict(points), abs=1e-9)


def with_meaningless_test_accuracies(recorded: RecordedTable) -> RecordedTable:
    runs = [
        dataclasses.replace(
            run, curve=tuple(dataclasses.replace(result, watched_accuracy=0.123 * result.epoch) for result in run.curve)
        )
        for run in recorded.runs
    ]
    return dataclasses.replace(recorded, runs=runs)


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

    def test_a_missing_measure_counts_as_one_scale(self) -> None:
        measured, unmeasured = target(), Target(epochs=LENGTH)
        assert (
            task_similarity(unmeasured, unmeasured)
            == pytest.approx(np.exp(-1.0))
            == pytest.approx(task_similarity(measured, unmeasured))
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

    def test_tables_of_the_own_architecture_replace_those_of_others(self) -> None:
        narrow, wide, other = (
            dataclasses.replace(target(), backbone=name)
            for name in ("mobilenet_v2(width_mult=0.35)", "mobilenet_v2", "squeezenet1_0")
        )
        assert table_weights(narrow, [wide, other]) == pytest.approx([1.0, 0.1])
        assert table_weights(narrow, [wide, wide, other]) == pytest.approx([1.0, 1.0, 0.1])
        assert table_weights(other, [narrow, wide]) == pytest.approx([1.0, 1.0])  # none of its own
        far = dataclasses.replace(target(0.2, 0.1), backbone="squeezenet1_0")
        own = task_similarity(other, far)
        assert 0.1 < own < 0.9
        assert table_weights(other, [far, wide]) == pytest.approx([own, 1.0 - 0.9 * own])
        assert table_weights(narrow, []).shape == (0,)

    def test_the_architecture_is_that_of_the_profile(self) -> None:
        known = profile(0.6, 0.1) | {"facts": {"backbone": "timm:resnet18(drop_rate=0.1)"}}
        assert Target.of(facts(), known, LENGTH).architecture == "timm:resnet18"
        assert Target.of(facts(), None, LENGTH).architecture == ""
