from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest

from nbt.errors import UsageError
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.benchmark import methods
from nbt.tuning.benchmark.in_memory_store import InMemoryStudyStore
from nbt.tuning.benchmark.methods import (
    RECOMMENDATION_NAME,
    SearchComponents,
    SearchContext,
    SearchMethod,
    get_method,
    method_names,
)
from nbt.tuning.benchmark.nearest_sampler import PoolSampler
from nbt.tuning.benchmark.runner import replay_search
from nbt.tuning.benchmark.tabular import TabularBenchmark
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.pruners.base import AshaPruner, NoPruner, PositionHalvingPruner
from nbt.tuning.pruners.fit_pruner import FitPruner
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.surrogate.prior_surrogate import RECORDED_TASKS
from nbt.tuning.tuned_recipes import TUNED_DEFAULT, tuned_default
from tests.tuning.synthetic import (
    LENGTH,
    SPACE,
    TREES,
    Task,
    patch_small_forests,
    profile,
    source_tables,
    table,
    target_table,
)

PLAIN = ("random", "asha", "tpe", "tpe+median", "tpe+hyperband", "tpe+asha")


@pytest.fixture(autouse=True)
def small_forests() -> Iterator[None]:
    with patch_small_forests():
        yield


@pytest.fixture(scope="module")
def benchmark() -> TabularBenchmark:
    return TabularBenchmark(target_table(), SPACE)


def make_context(
    benchmark: TabularBenchmark, experience: tuple[RecordedTable, ...] | None = None, **changes: Any
) -> SearchContext:
    values: dict[str, Any] = {
        "header": benchmark.header,
        "space": SPACE,
        "experience": source_tables() if experience is None else experience,
        "seed": 0,
        "settings": [setting.settings for setting in benchmark.settings],
    }
    return SearchContext(**{**values, **changes})


def build(name: str, benchmark: TabularBenchmark, **changes: Any) -> SearchComponents:
    return get_method(name).build(make_context(benchmark, **changes))


class TestRegistry:
    def test_default_methods(self) -> None:
        assert method_names(ablations=False) == (*PLAIN, "guided")

    def test_ablations_are_registered(self) -> None:
        ablations = set(method_names()) - set(method_names(ablations=False))
        assert ablations >= {"priors alone", "pruner alone", "learned alone", "rules alone"}
        assert all(get_method(name).description for name in method_names())

    def test_a_method_replaces_one_of_the_same_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
        other = SearchMethod(name="guided", description="Another method.", build=get_method("random").build)
        assert methods.register_method(other) is get_method("guided") is other

    def test_an_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(UsageError, match="unknown method 'guide'; did you mean guided"):
            get_method("guide")


class TestComponents:
    """The components that each method gives to the controller."""

    @pytest.mark.parametrize(
        ("name", "guided", "pruner"),
        [
            ("random", False, NoPruner),
            ("asha", False, AshaPruner),
            ("tpe", False, NoPruner),
            ("tpe+asha", False, AshaPruner),
            ("guided", True, FitPruner),
            ("priors alone", True, NoPruner),
            ("pruner alone", False, FitPruner),
            ("learned alone", True, FitPruner),
            ("rules alone", True, AshaPruner),
        ],
    )
    def test_sampler_and_pruner(self, benchmark: TabularBenchmark, name: str, guided: bool, pruner: type) -> None:
        components = build(name, benchmark)
        assert isinstance(components.sampler(0), BayesianSampler) == guided
        assert isinstance(components.pruner, pruner)
        assert [origin for origin, _ in components.initial_settings] == ([RECOMMENDATION_NAME] if guided else [])

    def sources(self, name: str, benchmark: TabularBenchmark, **changes: Any) -> list[Any]:
        sampler = build(name, benchmark, **changes).sampler(0)
        assert isinstance(sampler, BayesianSampler)
        return list(sampler._surrogate.sources)

    def recorded(self, name: str, benchmark: TabularBenchmark) -> list[bool]:
        return [source.name == RECORDED_TASKS for source in self.sources(name, benchmark)]

    def test_ablations_omit_sources(self, benchmark: TabularBenchmark) -> None:
        assert {True, False} == set(self.recorded("guided", benchmark)) == set(self.recorded("priors alone", benchmark))
        assert self.recorded("learned alone", benchmark) == [True]
        assert not any(self.recorded("rules alone", benchmark))

    def test_the_inverted_prior_mean_is_negated(self, benchmark: TabularBenchmark) -> None:
        right, wrong = (self.sources(name, benchmark) for name in ("guided", "inverted"))
        assert [source.mean for source in wrong] == [-source.mean for source in right]
        assert [source.spread for source in wrong] == [source.spread for source in right]

    def test_a_wrong_profile_is_that_of_the_least_similar_task(self, benchmark: TabularBenchmark) -> None:
        far = table(Task("moons"), 14, profile=profile(0.2, 0.19), facts={"classes": 7, "train_images": 9000})
        sampler = build("wrong profile", benchmark, experience=(*source_tables()[:1], far)).sampler(0)
        assert isinstance(sampler, BayesianSampler)
        assumed = sampler._surrogate.target
        assert (assumed.probe, assumed.classes, assumed.train_images) == (0.2, 7.0, 9000.0)
        assert assumed.validation_images == make_context(benchmark).target.validation_images
        assert assumed.epochs == LENGTH
        alone = build("wrong profile", benchmark, experience=()).sampler(0)
        assert isinstance(alone, BayesianSampler)
        assert alone._surrogate.target.probe == make_context(benchmark).target.probe, "without another task"

    def test_the_recommendation_is_recorded_and_no_baseline_recipe(self, benchmark: TabularBenchmark) -> None:
        for name in ("guided", "learned alone", "rules alone"):
            [(_, settings)] = build(name, benchmark).initial_settings
            assert settings in benchmark.index
            assert settings not in [baseline for _, baseline in baseline_recipes(LENGTH)]

    def test_a_recorded_tuned_default_runs_before_the_recommendation(self, benchmark: TabularBenchmark) -> None:
        recorded = [setting.settings for setting in benchmark.settings]
        for name, expected in (
            ("guided", [TUNED_DEFAULT, RECOMMENDATION_NAME]),
            ("rules alone", [RECOMMENDATION_NAME]),
        ):
            initial = build(name, benchmark, settings=[*recorded, tuned_default(LENGTH)]).initial_settings
            assert [origin for origin, _ in initial] == expected
            assert len({settings for _, settings in initial}) == len(initial)

    def test_lengths_that_differ_have_their_own_tuned_default_and_pruners(self) -> None:
        halves = [
            dataclasses.replace(run, settings=run.settings.replace(epochs=LENGTH // 2), curve=run.curve[: LENGTH // 2])
            for run in target_table().runs[:20]
        ]
        mixed = TabularBenchmark(dataclasses.replace(target_table(), runs=[*halves, *target_table().runs[20:]]), SPACE)
        recorded = [setting.settings for setting in mixed.settings]
        for length, expected in ((2 * LENGTH, [TUNED_DEFAULT, RECOMMENDATION_NAME]), (LENGTH, [RECOMMENDATION_NAME])):
            components = build("guided", mixed, space=mixed.space, settings=[*recorded, tuned_default(length)])
            assert [origin for origin, _ in components.initial_settings] == expected
        for name in ("asha", "tpe+asha", "rules alone"):
            assert isinstance(build(name, mixed, space=mixed.space).pruner, PositionHalvingPruner)

    def test_without_a_profile_the_target_has_its_validation_images_alone(self, benchmark: TabularBenchmark) -> None:
        sampler = build("without profile", benchmark).sampler(0)
        assert isinstance(sampler, BayesianSampler)
        assumed, own = sampler._surrogate.target, make_context(benchmark).target
        assert assumed.validation_images == own.validation_images
        assert (assumed.probe, assumed.classes, assumed.layers) == (None, None, ())
        assert own.probe is not None

    def test_models_of_the_same_tables_are_shared(self, benchmark: TabularBenchmark) -> None:
        first, second = (build("guided", benchmark, seed=seed) for seed in (0, 1))
        assert isinstance(first.pruner, FitPruner) and isinstance(second.pruner, FitPruner)
        assert first.pruner._forecaster is second.pruner._forecaster

    def test_without_experience_the_pruner_is_asha(self, benchmark: TabularBenchmark) -> None:
        components = build("guided", benchmark, experience=())
        assert isinstance(components.pruner, AshaPruner)
        assert isinstance(components.sampler(0), BayesianSampler)

    def test_the_context_has_only_the_header_of_the_task(self, benchmark: TabularBenchmark) -> None:
        target = make_context(benchmark).target
        assert target.facts == benchmark.header.facts and target.epochs == LENGTH
        assert {item.name for item in dataclasses.fields(SearchContext)} == {
            *("header", "space", "experience", "seed", "settings")
        }


class TestSearches:
    @pytest.mark.parametrize("name", [name for name in method_names() if name not in PLAIN])
    def test_every_method_searches_a_recorded_task(self, benchmark: TabularBenchmark, name: str) -> None:
        trials = replay_search(benchmark, get_method(name), experience=source_tables(), seed=1, budget=12)
        used = [trial.setting for trial in trials]
        assert len(used) == len(set(used)) >= 12
        assert trials[-1].cumulative_epochs <= 12 * LENGTH
        assert trials == replay_search(benchmark, get_method(name), experience=source_tables(), seed=1, budget=12)

    def test_guided_is_better_than_random_and_needs_fewer_epochs(self, benchmark: TabularBenchmark) -> None:
        true_logit = np.array([TREES.true_logit(setting.settings) for setting in benchmark.settings])
        random, guided = (
            [
                np.mean(
                    true_logit[
                        [
                            trial.setting
                            for trial in replay_search(
                                benchmark, get_method(name), experience=source_tables(), seed=seed, budget=10
                            )[3:]
                        ]
                    ]
                )
                for seed in range(3)
            ]
            for name in ("random", "priors alone")
        )
        assert min(guided) > max(random)

    def test_the_fit_pruner_stops_poor_settings_early(self, benchmark: TabularBenchmark) -> None:
        trials = replay_search(benchmark, get_method("pruner alone"), experience=source_tables(), seed=0, budget=15)
        true_logit = [TREES.true_logit(setting.settings) for setting in benchmark.settings]
        stopped = [true_logit[trial.setting] for trial in trials if trial.stopped is not None]
        full = [true_logit[trial.setting] for trial in trials if trial.stopped is None]
        assert len(trials) > 15 and stopped
        assert np.mean(stopped) < np.mean(full)
        assert all(trial.stopped is None for trial in trials[:3]), "baseline recipes run to their end"
        assert all("the chance of beating" in trial.stopped for trial in trials if trial.stopped is not None)

    def test_the_recommendation_runs_after_the_baseline_recipes(self, benchmark: TabularBenchmark) -> None:
        [(_, settings)] = build("guided", benchmark).initial_settings
        trials = replay_search(benchmark, get_method("guided"), experience=source_tables(), seed=0, budget=8)
        assert trials[3].setting == benchmark.index[settings]

    def test_forecasts_are_stored_with_the_trials(
        self, benchmark: TabularBenchmark, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stores: list[InMemoryStudyStore] = []
        original_init = InMemoryStudyStore.__init__

        def recording_init(self: InMemoryStudyStore, *arguments: Any) -> None:
            original_init(self, *arguments)
            stores.append(self)

        monkeypatch.setattr(InMemoryStudyStore, "__init__", recording_init)
        replay_search(benchmark, get_method("guided"), experience=source_tables(), seed=0, budget=10)
        trials = stores[0].record().trials
        assert [trial.origin for trial in trials[3:4]] == [f"recommended: {RECOMMENDATION_NAME}"]
        assert all(trial.forecast is None for trial in trials[:1]), "there was no reference trial"
        assert all(trial.forecast is not None for trial in trials if trial.state == "pruned")


class TestLeaveOneTaskOut:
    @pytest.mark.parametrize("name", ["guided", "pruner alone", "portfolio"])
    def test_unseen_curves_of_the_task_have_no_influence(self, benchmark: TabularBenchmark, name: str) -> None:
        """Changing the curves of settings that a search does not run must not change the search."""
        budget = 6
        trials = replay_search(benchmark, get_method(name), experience=source_tables(), seed=0, budget=budget)
        seen = {trial.setting for trial in trials}

        def change_unseen(run: Any) -> Any:
            if benchmark.index[run.settings] in seen:
                return run
            rows = tuple(dataclasses.replace(row, val_accuracy=0.99, val_loss=0.01) for row in run.curve)
            return dataclasses.replace(run, curve=rows)

        changed = dataclasses.replace(target_table(), runs=[change_unseen(run) for run in target_table().runs])
        repeated = replay_search(
            TabularBenchmark(changed, SPACE), get_method(name), experience=source_tables(), seed=0, budget=budget
        )
        assert [(trial.setting, trial.epochs) for trial in repeated] == [
            (trial.setting, trial.epochs) for trial in trials
        ]

    def test_test_accuracies_have_no_influence(self, benchmark: TabularBenchmark) -> None:
        def hide_test_accuracies(run: Any) -> Any:
            rows = tuple(dataclasses.replace(row, watched_accuracy=0.5) for row in run.curve)
            return dataclasses.replace(run, curve=rows)

        changed_tables = [
            dataclasses.replace(recorded, runs=[hide_test_accuracies(run) for run in recorded.runs])
            for recorded in (target_table(), *source_tables())
        ]
        first = replay_search(benchmark, get_method("guided"), experience=source_tables(), seed=0, budget=8)
        second = replay_search(
            TabularBenchmark(changed_tables[0], SPACE),
            get_method("guided"),
            experience=changed_tables[1:],
            seed=0,
            budget=8,
        )
        assert first == second


class TestUniformPoolSampler:
    def test_recorded_settings_are_drawn_uniformly(self, benchmark: TabularBenchmark) -> None:
        sampler = build("random", benchmark).sampler(0)
        assert isinstance(sampler, PoolSampler) and isinstance(sampler, optuna.samplers.RandomSampler)
        counts = np.bincount([sampler.choose([{}] * 4) for _ in range(2000)], minlength=4)
        assert (np.abs(counts - 500) < 100).all()

    def test_draws_depend_on_the_seed(self, benchmark: TabularBenchmark) -> None:
        def drawn(seed: int) -> list[int]:
            sampler = build("random", benchmark).sampler(seed)
            assert isinstance(sampler, PoolSampler)
            return [sampler.choose([{}] * 99) for _ in range(5)]

        assert drawn(0) == drawn(0) != drawn(1)


def test_the_portfolio_follows_the_mean_score_on_recorded_tasks(benchmark: TabularBenchmark) -> None:
    first = [
        [
            trial.setting
            for trial in replay_search(
                benchmark, get_method("portfolio"), experience=source_tables(), seed=seed, budget=9
            )
        ]
        for seed in (0, 1)
    ]
    assert first[0] == first[1], "the portfolio is deterministic"
    true_logit = [TREES.true_logit(setting.settings) for setting in benchmark.settings]
    assert np.mean([true_logit[i] for i in first[0][3:]]) > np.quantile(true_logit, 0.7)
