"""Trials in Optuna's tables read back through Optuna as its own methods would have written them."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from nbt.tuning.storage.optuna_tables import OptunaTables, read_optuna_trials

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "units": IntDistribution(0, 19),
    "policy": CategoricalDistribution(("none", "crop", 3)),
}


def test_optuna_reads_what_is_written(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}")
    optuna.create_study(study_name="other", storage=storage).ask(DISTRIBUTIONS)
    optuna.create_study(study_name="s", storage=storage, direction="maximize")
    tables, memory = OptunaTables(storage.engine, "s"), optuna.create_study(direction="maximize")
    started = [memory.ask(DISTRIBUTIONS) for _ in range(3)]
    with storage.engine.begin() as connection:
        tables.add_running(connection, [])
        tables.add_running(connection, memory.get_trials()[:2])
        tables.add_running(connection, memory.get_trials()[2:])

    def stored() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="s", storage=storage).get_trials()

    for found, expected in zip(stored(), memory.get_trials(), strict=True):
        assert (found.number, found.state) == (expected.number, TrialState.RUNNING)
        assert found.params == expected.params and found.distributions == expected.distributions
        assert found.datetime_start == expected.datetime_start and found.datetime_complete is None
    memory.tell(started[0], 0.75)
    memory.tell(started[2], state=TrialState.PRUNED)
    with storage.engine.begin() as connection:
        tables.end(connection, [])
        tables.end(connection, [memory.get_trials()[0], memory.get_trials()[2]])
    assert [trial.state for trial in stored()] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED]
    assert [trial.value for trial in stored()] == [0.75, None, None]
    ends = [trial.datetime_complete for trial in stored()]
    assert ends == [trial.datetime_complete for trial in memory.get_trials()]
    assert optuna.load_study(study_name="s", storage=storage).best_trial.number == 0
    assert [t.state for t in optuna.load_study(study_name="other", storage=storage).trials] == [TrialState.RUNNING]


def test_trials_are_read_as_optuna_reads_them(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}")
    optuna.create_study(study_name="other", storage=storage).ask(DISTRIBUTIONS)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    complete, failed, running = (study.ask(DISTRIBUTIONS) for _ in range(3))
    for step, value in enumerate((0.5, math.inf, -math.inf, math.nan)):
        complete.report(value, step)
    complete.set_user_attr("settings", {"rates": [0.1, None], "name": "é"})
    complete.storage.set_trial_system_attr(complete._trial_id, "rung_0", 0.5)
    study.tell(complete, math.inf)
    study.tell(failed, state=TrialState.FAIL)
    study.enqueue_trial({"rate": 0.1})
    with storage.engine.connect() as connection:
        trials = read_optuna_trials(connection, "s")
        assert read_optuna_trials(connection, "unknown") == []
    expected = study.get_trials()
    # The representation tells 1 from 1.0, and NaN is not equal to itself.
    assert [repr(vars(trial)) for trial in trials] == [repr(vars(trial)) for trial in expected]
    assert [trial.number for trial in trials] == [0, 1, 2, 3] and running.number == 2
    assert trials[0].distributions is trials[1].distributions


def test_copies_of_stored_trials_share_what_nothing_changes(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}")
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    study.tell(study.ask(DISTRIBUTIONS), 0.5)
    with storage.engine.connect() as connection:
        [trial] = read_optuna_trials(connection, "s")
    memory = optuna.create_study(direction="maximize")
    memory.add_trials([trial, trial])
    first, second = memory.get_trials(deepcopy=False)
    assert (first.number, second.number, trial.number) == (0, 1, 0)
    assert first is not trial and first.params is trial.params
    assert copy.deepcopy(trial) == trial
