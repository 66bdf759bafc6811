from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.encoding import encode
from nbt.tuning.surrogate import experience_model
from nbt.tuning.surrogate.experience_model import MIN_SETTINGS, ExperienceModel, TaskExperience
from nbt.tuning.surrogate.logit_score import LOGIT_SCORE_UNIT, MAX_GAP_TO_BEST
from tests.tuning.benchmark.tables import diverge, make_table
from tests.tuning.synthetic import BIRDS, TREES, Task, draw, profile, source_tables, table, target, trees_target

OTHER = profile() | {"facts": {"backbone": "squeezenet1_0"}}


def fit(*tables: RecordedTable) -> ExperienceModel:
    model = ExperienceModel.fit(tables)
    assert model is not None
    return model


def rank(values: np.ndarray, task: Task, settings: list[TransferSettings]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(values, [task.true_logit(recipe) for recipe in settings]).statistic)


@pytest.fixture(scope="module")
def model() -> ExperienceModel:
    return fit(*source_tables())


@pytest.fixture(scope="module")
def trees(model: ExperienceModel) -> TaskExperience:
    return model.for_target(trees_target())


class TestPrediction:
    def test_it_ranks_settings_that_were_not_recorded_on_another_task(self, trees: TaskExperience) -> None:
        new = draw(200, seed=77)
        assert rank(trees.predict(new), TREES, new) > 0.7

    def test_the_median_recorded_setting_is_zero_and_the_unit_is_that_of_the_logit_score(self) -> None:
        recorded = source_tables()[0]
        settings = list(dict.fromkeys(run.settings for run in recorded.runs))
        predicted = fit(recorded).for_target(trees_target()).predict(settings)
        assert np.median(predicted) == pytest.approx(0.0, abs=1e-9)
        true_logit = np.array([BIRDS.true_logit(recipe) for recipe in settings])
        good = true_logit > np.median(true_logit)
        assert np.ptp(predicted[good]) == pytest.approx(np.ptp(true_logit[good]) / LOGIT_SCORE_UNIT, rel=0.5)

    def test_points_may_be_given(self, trees: TaskExperience) -> None:
        settings = draw(5)
        np.testing.assert_array_equal(trees.predict(settings), trees.predict(settings, encode(settings)))
        assert trees.predict([]).shape == (0,)

    def test_similar_tasks_count_more(self) -> None:
        """Two tasks with opposite best rates; the prediction follows the one that resembles the target."""
        few, many = {"train_images": 200, "classes": 10}, {"train_images": 90_000, "classes": 10}
        slow, fast = Task("slow", rate=-2.5, seed=1), Task("fast", rate=0.5, seed=2)
        both = fit(
            table(slow, 60, profile=profile(0.9, 0.1), facts=few),
            table(fast, 60, profile=profile(0.3, 0.25), facts=many),
        )
        settings = draw(200, seed=5)
        like_slow, like_fast = (
            both.for_target(target(*probes, **facts)).predict(settings)
            for probes, facts in (((0.9, 0.1), few), ((0.3, 0.25), many))
        )
        assert rank(like_slow, slow, settings) > rank(like_fast, slow, settings) + 0.3
        assert rank(like_fast, fast, settings) > rank(like_slow, fast, settings) + 0.3

    def test_tables_of_another_architecture_say_less(self) -> None:
        recorded = source_tables()[0]
        other = dataclasses.replace(recorded, header=dataclasses.replace(recorded.header, profile=OTHER))
        settings = draw(50)
        own, foreign = (fit(found).for_target(trees_target()) for found in (recorded, other))
        assert foreign.predict(settings) == pytest.approx(0.1 * own.predict(settings), abs=1e-9)
        assert own.own_architecture == pytest.approx(1.0) and foreign.own_architecture == 0.0
        assert own.similarities == pytest.approx({"birds": 1.0}) and foreign.similarities == {}

    def test_an_unknown_architecture_is_another_one(self) -> None:
        recorded = source_tables()[0]
        header = dataclasses.replace(recorded.header, backbone="", profile=profile())
        unknown = dataclasses.replace(recorded, header=header)
        bare = dataclasses.replace(trees_target(), backbone="")
        assert fit(unknown).for_target(bare).own_architecture == 0.0

    def test_the_architecture_of_a_table_without_a_profile_is_that_of_its_backbone(self) -> None:
        recorded = source_tables()[0]
        bare = dataclasses.replace(recorded, header=dataclasses.replace(recorded.header, profile=None))
        assert 0.5 < fit(bare).for_target(trees_target()).own_architecture < 1.0

    def test_a_dataset_counts_once_and_one_with_few_settings_in_part(self) -> None:
        recorded = source_tables()[0]
        few = dataclasses.replace(recorded, runs=[run for run in recorded.runs if run.setting < 3])
        other = table(Task("other"), 12, dataset="other", data_hash="other")
        assert fit(recorded, recorded).for_target(trees_target()).own_architecture == pytest.approx(1.0)
        assert fit(few, other).for_target(trees_target()).own_architecture == pytest.approx(1.0 + 3 / MIN_SETTINGS)
        foreign = dataclasses.replace(recorded, header=dataclasses.replace(recorded.header, profile=OTHER))
        assert fit(few, foreign).for_target(trees_target()).own_architecture == pytest.approx(3 / MIN_SETTINGS)

    def test_of_very_many_settings_the_best_and_a_spread_of_the_others_are_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorded, settings = table(BIRDS, 120), draw(100, seed=6)
        monkeypatch.setattr(experience_model, "_MAX_SETTINGS", 60)
        model = fit(recorded)
        assert len(model.weights) == 60
        assert rank(model.for_target(trees_target()).predict(settings), BIRDS, settings) > 0.6
        best = max(recorded.runs, key=lambda run: run.val_accuracy)
        assert best.settings in model.best

    def test_the_level_of_a_table_does_not_matter(self) -> None:
        """Of two tables of one task, one holds only the better settings; neither hides what the other says."""
        recorded = source_tables()[0]
        order = sorted(recorded.runs, key=lambda run: -run.val_accuracy)
        good = dataclasses.replace(recorded, runs=order[:20])
        settings = [run.settings for run in order]
        predicted = fit(good, recorded).for_target(trees_target()).predict(settings)
        assert rank(predicted, BIRDS, settings) > 0.8

    def test_longer_trainings_are_other_settings(self) -> None:
        short = table(BIRDS, 30)
        runs = [
            dataclasses.replace(run, settings=run.settings.replace(epochs=48), curve=BIRDS.curve(draw(1)[0], seed=i))
            for i, run in enumerate(short.runs)
        ]
        predict = fit(short, dataclasses.replace(short, runs=runs)).for_target(trees_target()).predict
        settings = draw(20)
        longer = [recipe.replace(epochs=48) for recipe in settings]
        assert not np.allclose(predict(settings), predict(longer), atol=0.05)

    def test_only_validation_accuracies_are_used(self, trees: TaskExperience) -> None:
        changed = fit(*map(with_meaningless_test_accuracies, source_tables())).for_target(trees_target())
        settings = draw(10)
        np.testing.assert_array_equal(changed.predict(settings), trees.predict(settings))


def with_meaningless_test_accuracies(recorded: RecordedTable) -> RecordedTable:
    runs = [
        dataclasses.replace(
            run, curve=tuple(dataclasses.replace(result, watched_accuracy=0.123 * result.epoch) for result in run.curve)
        )
        for run in recorded.runs
    ]
    return dataclasses.replace(recorded, runs=runs)


class TestModel:
    def test_the_best_come_first_and_once(self) -> None:
        best = fit(source_tables()[0], source_tables()[0]).best
        best_logits = [BIRDS.true_logit(recipe) for recipe in best]
        all_logits = sorted((BIRDS.true_logit(run.settings) for run in source_tables()[0].runs), reverse=True)
        assert len(best) == 12 == len(set(best))
        assert np.mean(best_logits) > np.quantile(all_logits, 0.75)
        assert max(best_logits[:4]) >= all_logits[5]

    def test_a_small_table_has_few_best_settings(self) -> None:
        assert len(fit(make_table(12)).best) == 4

    def test_the_headers_are_those_of_the_tables(self, model: ExperienceModel) -> None:
        assert model.headers == tuple(recorded.header for recorded in source_tables())

    def test_runs_of_a_setting_are_averaged(self) -> None:
        recorded = make_table(20)
        assert len(fit(recorded).weights) == 20 < len(recorded.runs)

    def test_too_few_settings_in_total_give_no_model(self) -> None:
        assert ExperienceModel.fit([]) is None
        assert ExperienceModel.fit([make_table(MIN_SETTINGS - 1)]) is None
        assert ExperienceModel.fit([make_table(MIN_SETTINGS)]) is not None
        assert len(fit(make_table(MIN_SETTINGS - 1), make_table(2), make_table(0)).headers) == 2

    def test_failed_settings_do_not_distort_the_scale_of_good_ones(self) -> None:
        recorded = make_table(40, change=lambda run: diverge(run) if run.setting % 4 == 1 else run)
        settings = [run.settings for run in recorded.runs]
        predicted = fit(recorded).for_target(target()).predict(settings)
        assert np.ptp(predicted) <= MAX_GAP_TO_BEST + 3

    def test_all_runs_diverged(self) -> None:
        model = fit(make_table(12, change=diverge))
        assert model.for_target(target()).predict(draw(3)) == pytest.approx(np.zeros(3), abs=1e-6)

    def test_settings_that_few_runs_vary_do_not_count_as_varied(self) -> None:
        recorded = table(BIRDS, 40)
        assert {"head_lr", "body_lr", "frozen_depth"} <= fit(recorded).varied
        few = dataclasses.replace(
            recorded,
            runs=[
                dataclasses.replace(run, settings=run.settings.replace(class_weights="balanced" if i < 5 else "none"))
                for i, run in enumerate(recorded.runs)
            ],
        )
        assert "class_weights" not in fit(few).varied
        assert "class_weights" in fit(few, few, few).varied
