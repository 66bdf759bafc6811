from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from nbt.errors import UsageError
from nbt.tuning.benchmark import methods
from nbt.tuning.benchmark.in_memory_store import InMemoryStudyStore, replay_study_config
from nbt.tuning.benchmark.methods import (
    SearchComponents,
    SearchContext,
    SearchMethod,
    get_method,
    leave_dataset_out,
    method_names,
)
from nbt.tuning.benchmark.runner import replay, replay_search
from nbt.tuning.benchmark.tabular import TabularBenchmark
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, describe_dimensions
from nbt.tuning.pruners.base import TrialContext
from nbt.tuning.space.space import Space
from tests.tuning.benchmark.tables import LENGTH, SPACE, halve_even, make_curve, make_table, true_accuracy
from tests.tuning.fakes import DATASET, FakeEngine, make_controller, open_fake_study


@pytest.fixture(scope="module")
def benchmark() -> TabularBenchmark:
    return TabularBenchmark(make_table(60), SPACE)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    yield


class BestFirstSampler(optuna.samplers.RandomSampler):
    """A pool sampler that knows the true accuracies and takes the best setting."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.studies: list[int] = []

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        self.studies.append(len(study.get_trials(deepcopy=False)))

    def choose(self, candidates: Sequence[Mapping[str, Any]]) -> int:
        accuracies = [true_accuracy(SPACE.settings(params, LENGTH)) for params in candidates]
        return int(np.argmax(accuracies))


class TestSearch:
    @pytest.mark.parametrize("name", method_names())
    def test_every_method_uses_each_setting_once_within_its_budget(
        self, benchmark: TabularBenchmark, name: str
    ) -> None:
        trials = replay_search(benchmark, get_method(name), seed=3, budget=15)
        used = [trial.setting for trial in trials]
        assert len(used) == len(set(used)) >= 15
        assert trials[-1].cumulative_epochs == sum(trial.epochs for trial in trials) <= 15 * LENGTH
        stops = sum(trial.stopped is not None for trial in trials)
        assert stops == 0 or name not in ("random", "tpe", "priors alone")
        assert stops > 0 or "asha" not in name
        assert [trial.distance for trial in trials[:3]] == [None] * 3 or name == "random"
        distances = [trial.distance for trial in trials[3:] if trial.distance is not None]
        is_replaced = "tpe" in name or name == "pruner alone"  # by the nearest recorded setting
        assert all(distance > 0 for distance in distances) if is_replaced else not any(distances)

    def test_baseline_recipes_run_first_except_in_random_search(self, benchmark: TabularBenchmark) -> None:
        searches = {name: replay_search(benchmark, get_method(name), budget=5) for name in ("random", "tpe")}
        assert [trial.setting for trial in searches["tpe"]][:3] == [0, 1, 2]
        assert [trial.setting for trial in searches["random"]][:3] != [0, 1, 2]

    def test_baseline_recipes_that_were_not_recorded_are_left_out(self) -> None:
        table = make_table(30)
        table = type(table)(table.header, [run for run in table.runs if run.origin == "random"], "t")
        trials = replay_search(TabularBenchmark(table, SPACE), get_method("tpe"), budget=5)
        assert len(trials) == 5
        assert all(trial.distance is not None for trial in trials)

    def test_a_search_depends_on_the_seed(self, benchmark: TabularBenchmark) -> None:
        first, repeated, other = (
            replay_search(benchmark, get_method("asha"), seed=seed, budget=12) for seed in (1, 1, 2)
        )
        assert first == repeated
        assert first != other

    def test_a_short_table_is_replayed_completely(self) -> None:
        trials = replay_search(TabularBenchmark(make_table(8), SPACE), get_method("tpe+asha"), budget=8)
        assert sorted(trial.setting for trial in trials) == list(range(8))

    @pytest.mark.parametrize("name", ["random", "tpe+asha", "tpe+hyperband"])
    def test_a_table_of_several_lengths_is_replayed_within_the_budget(self, name: str) -> None:
        benchmark = TabularBenchmark(make_table(40, change=halve_even), SPACE)
        trials = replay_search(benchmark, get_method(name), seed=2, budget=8)
        lengths = [benchmark.settings[trial.setting].settings.epochs for trial in trials]
        complete = [
            (trial.epochs, length) for trial, length in zip(trials, lengths, strict=True) if trial.stopped is None
        ]
        assert {LENGTH // 2, LENGTH} == set(lengths)
        assert all(epochs == length for epochs, length in complete)
        assert 8 * LENGTH - LENGTH // 2 < trials[-1].cumulative_epochs <= 8 * LENGTH

    def test_a_pool_sampler_receives_the_unused_settings(self, benchmark: TabularBenchmark) -> None:
        samplers: list[BestFirstSampler] = []

        def sampler(seed: int) -> BestFirstSampler:
            samplers.append(BestFirstSampler(seed))
            return samplers[-1]

        method = SearchMethod(
            name="greedy", description="", build=lambda context: SearchComponents(sampler=sampler), runs_baselines=False
        )
        trials = replay_search(benchmark, method, budget=5)
        accuracies = [true_accuracy(setting.settings) for setting in benchmark.settings]
        assert [trial.setting for trial in trials] == list(np.argsort(accuracies)[::-1][:5])
        assert {trial.distance for trial in trials} == {0.0}
        assert samplers[0].studies == [1, 2, 3, 4, 5], "the study is passed before each choice"

    def test_the_study_has_the_settings_that_ran(self, benchmark: TabularBenchmark) -> None:
        decided: list[tuple[Any, Any]] = []

        class RecordingPruner:
            def decide(self, context: TrialContext) -> str | None:
                params = context.study.get_trials(deepcopy=False)[context.number].params
                decided.append((SPACE.settings(params, LENGTH), context.settings))
                return None

        method = SearchMethod(
            name="watch",
            description="",
            build=lambda context: SearchComponents(
                sampler=lambda seed: optuna.samplers.RandomSampler(seed), pruner=RecordingPruner()
            ),
        )
        replay_search(benchmark, method, budget=8)
        assert len(decided) == 8 * (LENGTH - 1)
        assert all(stored == run and run in benchmark.index for stored, run in decided)


class TestContext:
    def test_a_method_never_sees_the_evaluated_task(self, registry: None) -> None:
        contexts: list[SearchContext] = []

        def build(context: SearchContext) -> SearchComponents:
            contexts.append(context)
            return get_method("random").build(context)

        methods.register_method(SearchMethod(name="spy", description="", build=build))
        tables = [
            make_table(12, seed=i, dataset=name, data_hash=name, profile={"scalars": {"n": i}})
            for i, name in enumerate("abc")
        ]
        replay(tables, space=SPACE, methods=["spy"], seeds=1, budget=2)
        assert [context.header.dataset for context in contexts] == ["a", "b", "c"]
        assert [[table.header.dataset for table in context.experience] for context in contexts] == [
            ["b", "c"],
            ["a", "c"],
            ["a", "b"],
        ]
        assert contexts[1].header.profile == {"scalars": {"n": 1}}

    def test_given_experience_replaces_the_other_tasks(self, registry: None) -> None:
        experience: list[list[str]] = []

        def build(context: SearchContext) -> SearchComponents:
            experience.append([table.header.dataset for table in context.experience])
            return get_method("random").build(context)

        methods.register_method(SearchMethod(name="spy", description="", build=build))
        tables, others = (
            [make_table(12, seed=i, dataset=name, data_hash=name) for i, name in enumerate(names)]
            for names in ("ab", "bcd")
        )
        replay(tables, space=SPACE, experience=others, methods=["spy"], seeds=1, budget=2)
        assert experience == [["b", "c", "d"], ["c", "d"]]

    def test_tables_of_the_same_images_or_dataset_are_left_out(self) -> None:
        evaluated = make_table(3, dataset="a", data_hash="1")
        renamed = make_table(3, dataset="b", data_hash="1")
        other_shots = make_table(3, dataset="a", data_hash="2", backbone="conv4")
        unrelated = make_table(3, dataset="c", data_hash="3")
        assert leave_dataset_out([evaluated, renamed, other_shots, unrelated], evaluated) == [unrelated]


@pytest.fixture(scope="module")
def tables() -> list[RecordedTable]:
    return [make_table(40, seed=i, dataset=name, data_hash=name) for i, name in enumerate("ab")]


class TestReplay:
    def test_tasks_have_different_names(self) -> None:
        small, large = (
            replace(table, header=replace(table.header, image_size=size))
            for size, table in ((64, make_table(12, seed=0)), (128, make_table(12, seed=1)))
        )
        result = replay([small, large], space=SPACE, methods=["random"], seeds=1, budget=2)
        name = small.header.name
        assert [task.name for task in result.tasks] == [f"{name}, 64 px", f"{name}, 128 px"]
        with pytest.raises(UsageError, match=r"are tables of the same task, .*64 px: replay them one by one"):
            replay([small, replace(small, source="again")], space=SPACE, methods=["random"], seeds=1, budget=2)

    def test_all_methods_run_with_all_seeds_on_all_tasks(self, tables: list[RecordedTable]) -> None:
        progress: list[tuple[int, int]] = []
        result = replay(
            tables,
            space=SPACE,
            methods=["random", "asha"],
            seeds=3,
            budget=10,
            on_progress=lambda done, total: progress.append((done, total)),
        )
        assert progress == [(i, 12) for i in range(1, 13)]
        assert [task.name for task in result.tasks] == ["a · conv3", "b · conv3"]
        assert result.tasks[0].methods["asha"].regret["test"].shape == (3, 10 * LENGTH)
        assert [row["method"] for row in result.summary_rows()] == ["random", "asha"] * 2

    def test_the_number_of_processes_has_no_effect(self, tables: list[RecordedTable]) -> None:
        options: dict[str, Any] = {"space": SPACE, "methods": ["random", "tpe+asha"], "seeds": 2, "budget": 12}
        serial, parallel = (replay(tables, workers=workers, **options) for workers in (1, 2))
        assert serial.search_rows() == parallel.search_rows()
        assert serial.overall_rows() == parallel.overall_rows()

    def test_one_table_is_enough_for_methods_without_experience(self, tables: list[RecordedTable]) -> None:
        result = replay(tables[:1], space=SPACE, methods=["random"], seeds=1, budget=4)
        assert result.tasks[0].experience == ()

    def test_regret_is_in_units_to_the_worst_where_the_best_equals_the_median(self) -> None:
        def with_two_ends(run: RecordedRun) -> RecordedRun:
            end = 0.3 if run.setting % 4 else 0.7
            return dataclasses.replace(run, curve=make_curve(1.0 - end, 1.0 - end))

        result = replay([make_table(30, change=with_two_ends)], space=SPACE, methods=["random"], seeds=2, budget=4)
        [task] = result.tasks
        assert task.truth.best == task.truth.median == 0.7
        assert task.range == pytest.approx(0.4)
        assert set(np.round(task.methods["random"].regret["test"][:, LENGTH - 1 :] / task.range, 9).ravel()) <= {0, 1}

    def test_the_horizon_is_limited_by_the_table(self) -> None:
        result = replay([make_table(9)], space=SPACE, methods=["random"], seeds=1, budget=60)
        assert result.tasks[0].horizon == 9 * LENGTH

    def test_a_sampler_that_knows_the_accuracies_wins(self, tables: list[RecordedTable], registry: None) -> None:
        build = lambda context: SearchComponents(sampler=BestFirstSampler)  # noqa: E731
        methods.register_method(SearchMethod(name="greedy", description="Knows the accuracies.", build=build))
        result = replay(tables, space=SPACE, methods=["random", "greedy"], seeds=6, budget=20)
        random, greedy = result.overall_rows()
        assert greedy["epochs"] <= 4 * LENGTH < random["epochs"]
        assert greedy["ratio"] < 0.9 and greedy["rank"] < 1.5 and greedy["p_epochs"] < 0.01
        assert greedy["worst_ratio"] < random["worst_ratio"]
        assert random["ratio"] == random["p_epochs"] == 1.0

    def test_invalid_input_is_rejected(self, tables: list[RecordedTable]) -> None:
        with pytest.raises(UsageError, match="unknown method 'tpa'; did you mean"):
            replay(tables, space=SPACE, methods=["tpa"])
        with pytest.raises(UsageError, match="no recorded tables"):
            replay([], space=SPACE)
        with pytest.raises(UsageError, match="seeds: 0"):
            replay(tables, space=SPACE, seeds=0)
        with pytest.raises(UsageError, match="space binary"):
            replay(tables, space=Space.load("binary"))
        other = make_table(4, dimensions={**describe_dimensions(SPACE), "dropout": [0, 1, "linear"]})
        with pytest.raises(UsageError, match="dropout"):
            replay([*tables, other], space=SPACE)


class TestInMemoryStudyStore:
    def test_a_study_in_memory_equals_one_on_disk(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, "14", epochs=LENGTH) as disk:
            memory = InMemoryStudyStore(disk.config, DATASET)
            for store in (disk, memory):
                controller = make_controller(store, "14", pruner="asha")
                FakeEngine().run(controller)
                controller.close()
            on_disk, in_memory = disk.record(), memory.record()
        assert [(t.settings, t.state, t.curve, t.reason) for t in in_memory.trials] == [
            (t.settings, t.state, t.curve, t.reason) for t in on_disk.trials
        ]
        assert {trial.state for trial in in_memory.trials} == {"complete", "pruned"}
        assert in_memory.noise == on_disk.noise is not None
        assert in_memory.epochs_spent == on_disk.epochs_spent

    def test_the_study_config_is_that_of_the_table(self) -> None:
        config = replay_study_config(make_table(3, shots=5).header, SPACE, 7)
        assert (config.seed, config.epochs, config.shots, config.space) == (7, LENGTH, 5, "non_binary")
