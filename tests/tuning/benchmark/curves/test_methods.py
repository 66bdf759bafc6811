from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nbt.errors import UsageError
from nbt.tuning.benchmark.curves.guided import _GuidedSearch
from nbt.tuning.benchmark.curves.methods import curve_methods
from nbt.tuning.benchmark.curves.search import BudgetSpentError, CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask, load_curve_task
from nbt.tuning.pruners.base import is_in_best_half
from tests.tuning.benchmark.curves.curve_files import write_table


@pytest.fixture
def tasks(tmp_path: Path) -> list[CurveTask]:
    paths = [write_table(tmp_path / "a.parquet"), write_table(tmp_path / "b.parquet", best=2e-2)]
    return [load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True) for path in paths]


def run(name: str, tasks: list[CurveTask], seed: int = 0) -> CurveSearch:
    search = CurveSearch(tasks[0], 6 * tasks[0].length)
    with pytest.raises(BudgetSpentError):
        curve_methods()[name][1](search, tasks[1:], seed)
    return search


@pytest.mark.parametrize("name", curve_methods())
def test_every_method_spends_its_budget_and_repeats_with_its_seed(name: str, tasks: list[CurveTask]) -> None:
    search = run(name, tasks)
    assert len(search.path) == 6 * 9
    assert search.path == run(name, tasks).path
    assert max(search.trained.values()) == 9, "at least one setting is trained to its end"


def test_methods_that_stop_start_more_settings(tasks: list[CurveTask]) -> None:
    for name in ("tpe+asha", "tpe+hyperband", "1-epoch", "guided"):
        assert len(run(name, tasks).trained) > len(run("tpe", tasks).trained), name


@pytest.mark.parametrize("length", [2, 3, 4])
@pytest.mark.parametrize("name", curve_methods())
def test_curves_may_be_short(name: str, length: int, tmp_path: Path) -> None:
    paths = [write_table(tmp_path / f"{stem}.parquet", epochs=length) for stem in "ab"]
    search = run(name, [load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True) for path in paths])
    assert len(search.path) == 6 * length
    assert name != "4-epoch" or set(list(search.trained.values())[:-1]) == {length}


@pytest.mark.parametrize("name", ["1-epoch", "4-epoch"])
def test_all_settings_are_trained_to_their_end_when_none_is_left(name: str, tasks: list[CurveTask]) -> None:
    search = CurveSearch(tasks[0], 1000)
    with pytest.raises(BudgetSpentError):
        curve_methods()[name][1](search, (), 0)
    assert list(search.trained.values()) == [9] * 40


def with_diverging_settings(task: CurveTask, settings: int) -> CurveTask:
    """Returns a task in which the first settings diverge in their second epoch, and half of them in their first."""
    scores = task.scores.copy()
    scores[:settings, 1:] = -np.inf
    scores[: settings // 2] = -np.inf
    return replace(task, scores=scores)


def test_random_settings_are_not_trained_beyond_their_divergence(tasks: list[CurveTask]) -> None:
    search = run("4-epoch", [with_diverging_settings(tasks[0], 20)])
    trained = [search.trained.get(setting, 0) for setting in range(20)]
    assert set(trained[:10]) == {0, 1} and set(trained[10:]) == {0, 2}


@pytest.mark.parametrize("seed", range(4))
def test_a_diverged_trial_is_as_bad_as_the_worst_so_far(
    tasks: list[CurveTask], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float | None, TrialState | None]] = []
    tell = optuna.Study.tell

    def record(self: optuna.Study, trial: Any, values: Any = None, state: Any = None) -> Any:
        told.append((values, state))
        return tell(self, trial, values, state=state)

    monkeypatch.setattr(optuna.Study, "tell", record)
    task = with_diverging_settings(tasks[0], 30)
    task.scores[next(iter(run("tpe", [task], seed).trained))] = -np.inf
    told.clear()
    search = run("tpe", [task], seed)
    expected, worst = list[tuple[float | None, TrialState | None]](), np.inf
    for setting in list(search.trained)[: len(told)]:
        scores = task.scores[setting]
        worst = min(worst, *scores[np.isfinite(scores)], np.inf)
        diverged = (None, TrialState.PRUNED) if np.isinf(worst) else (worst, None)
        expected.append((scores[-1], None) if np.isfinite(scores[-1]) else diverged)
    assert told == expected
    assert told[0] == (None, TrialState.PRUNED)


def test_halving_is_that_of_a_search(tasks: list[CurveTask]) -> None:
    search = run("without tables", tasks)
    rungs: dict[int, list[float]] = {3: [], 6: []}
    for setting, trained in list(search.trained.items())[:-1]:  # the budget ends the last one
        stops = []
        for epoch in (epoch for epoch in rungs if epoch <= trained):
            rungs[epoch].append(score := float(search.task.model_scores()[setting, epoch - 1]))
            stops += [] if is_in_best_half(score, rungs[epoch]) else [epoch]
        assert [trained] == (stops or [9])


def test_only_stopped_trials_have_a_forecast(tasks: list[CurveTask]) -> None:
    search = CurveSearch(tasks[0], 12 * 9)
    state = _GuidedSearch(search, (tasks[1],), 0)
    with pytest.raises(BudgetSpentError):
        state.run()
    stopped = {setting for setting, trained in list(search.trained.items())[:-1] if trained < 9}
    assert stopped and stopped == state._forecasts.keys() - {list(search.trained)[-1]}
    assert len(search.trained) > len(stopped) + 1


def test_tables_of_similar_tasks_help(tasks: list[CurveTask]) -> None:
    regrets = {name: [run(name, tasks, seed).regret()[8] for seed in range(3)] for name in ("guided", "random")}
    assert max(regrets["guided"]) < min(regrets["random"])


@pytest.mark.parametrize("columns", [{"depth": [1.0] * 40}, {"kind": [1.0] * 40}, {"kind": [True] * 40}])
def test_tables_with_other_hyperparameters_are_not_used(
    tasks: list[CurveTask], tmp_path: Path, columns: dict[str, Any]
) -> None:
    path = write_table(tmp_path / "c.parquet", **columns)
    other = load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True)
    assert run("guided", [tasks[0], other]).path == run("without tables", tasks).path


def test_tables_with_other_ranges_are_used(tasks: list[CurveTask]) -> None:
    with_zero = replace(tasks[0], columns={**tasks[0].columns, "rate": np.r_[0.0, tasks[0].columns["rate"][1:]]})
    assert run("guided", [with_zero, tasks[1]]).path != run("without tables", [with_zero]).path


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown method 'tpe\\+ahsa'; did you mean tpe\\+asha"):
        curve_methods(["tpe+ahsa"])
