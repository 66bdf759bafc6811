"""The write-through storage: its trials equal those of the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.tuning.storage.database import close, connect
from nbt.tuning.storage.write_through import WriteThroughStorage

SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "batch": CategoricalDistribution((16, 32)),
    "period": IntDistribution(0, 4),
}


@pytest.fixture()
def database(tmp_path: Path) -> Iterator[optuna.storages.RDBStorage]:
    storage = connect(f"sqlite:///{tmp_path / 'studies.db'}")
    yield storage
    close(storage)


@pytest.fixture()
def study(database: optuna.storages.RDBStorage) -> optuna.Study:
    created = optuna.create_study(study_name="s", storage=database, direction="maximize")
    return optuna.load_study(
        study_name="s", storage=WriteThroughStorage(database, created._study_id), sampler=fixed_sampler()
    )


def fixed_sampler() -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=0)


def write_through(study: optuna.Study) -> WriteThroughStorage:
    assert isinstance(study._storage, WriteThroughStorage)
    return study._storage


def content(trial: FrozenTrial) -> dict[str, Any]:
    """Returns all fields of a trial except its id."""
    names = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    names += ("intermediate_values", "datetime_start", "datetime_complete")
    return {name: getattr(trial, name) for name in names}


def assert_same(study: optuna.Study) -> None:
    stored = write_through(study).database.get_all_trials(study._study_id)
    assert [content(trial) for trial in study.get_trials()] == [content(trial) for trial in stored]


def start(study: optuna.Study) -> optuna.Trial:
    trial = study.ask(SPACE)
    trial.set_user_attr("settings", {"shape": (0.0, 1.0), "names": {1: "one"}})
    write_through(study).write(trial._trial_id)
    return trial


class TestEqualToDatabase:
    def test_a_trial_from_its_beginning_to_its_end(self, study: optuna.Study) -> None:
        trial = start(study)
        assert_same(study)
        trial.report(0.25, 1)
        trial.report(0.5, 2)
        trial.set_user_attr("progress", [1, 2])
        trial.storage.set_trial_system_attr(trial._trial_id, "note", {"a": 1})
        assert_same(study)
        finished = study.tell(trial, 0.5)
        assert finished.value == 0.5 and finished.intermediate_values == {1: 0.25, 2: 0.5}
        assert_same(study)

    @pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
    def test_trials_without_a_value(self, study: optuna.Study, state: TrialState) -> None:
        study.tell(start(study), state=state)
        assert study.trials[0].state is state
        assert_same(study)

    def test_given_parameters(self, study: optuna.Study) -> None:
        params = {"rate": 0.125, "batch": 32, "period": 3}
        study.enqueue_trial(params, user_attrs={"origin": "anchor"})
        trial = start(study)
        assert trial.params == params and trial.user_attrs["origin"] == "anchor"
        assert len(study.trials) == 1
        assert_same(study)

    def test_parameters_that_are_suggested_later(self, study: optuna.Study) -> None:
        trial = start(study)
        trial.suggest_float("late", 0.0, 1.0)
        assert_same(study)

    def test_trials_of_an_earlier_session(self, study: optuna.Study, database: optuna.storages.RDBStorage) -> None:
        study.tell(start(study), 0.5)
        start(study)
        reopened = optuna.load_study(study_name="s", storage=WriteThroughStorage(database, study._study_id))
        assert [trial.state for trial in reopened.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
        write_through(reopened).set_trial_state_values(reopened.trials[1]._trial_id, TrialState.FAIL)
        reopened.tell(start(reopened), 0.75)
        assert [trial.number for trial in reopened.trials] == [0, 1, 2]
        assert_same(reopened)


class TestNewTrials:
    def test_write_adds_the_trial_to_the_database_once(self, study: optuna.Study) -> None:
        trial = study.ask(SPACE)
        assert len(study.trials) == 1
        assert not write_through(study).database.get_all_trials(study._study_id)
        write_through(study).write(trial._trial_id)
        write_through(study).write(trial._trial_id)
        assert len(write_through(study).database.get_all_trials(study._study_id)) == 1

    @pytest.mark.parametrize("event", ["epoch", "end"])
    def test_a_trial_is_written_with_its_first_epoch_or_its_end(self, study: optuna.Study, event: str) -> None:
        trial = study.ask(SPACE)
        if event == "epoch":
            trial.report(0.5, 1)
        else:
            study.tell(trial, 0.5)
        assert_same(study)

    def test_a_trial_whose_creation_failed_is_removed(self, study: optuna.Study) -> None:
        with pytest.raises(AttributeError):
            study.ask({"rate": SPACE["rate"], "broken": None})  # type: ignore[dict-item]
        trial = start(study)
        assert trial.number == 0
        assert_same(study)

    def test_finished_trials_cannot_be_added(self, study: optuna.Study) -> None:
        with pytest.raises(NotImplementedError):
            study.add_trial(optuna.trial.create_trial(value=1.0))


class TestReading:
    def test_reading_does_not_access_the_database(
        self, study: optuna.Study, database: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trial = start(study)
        trial.report(0.5, 1)
        monkeypatch.setattr(database, "engine", None)
        monkeypatch.setattr(database, "scoped_session", None)
        assert study.get_trials(deepcopy=False)[0].intermediate_values == {1: 0.5}
        assert write_through(study).get_trial(trial._trial_id).params == trial.params

    def test_returned_trials_do_not_change(self, study: optuna.Study) -> None:
        trial = start(study)
        before = study.get_trials(deepcopy=False)[0]
        trial.report(0.5, 1)
        trial.set_user_attr("more", 1)
        study.tell(trial, 0.5)
        assert before.state is TrialState.RUNNING
        assert not before.intermediate_values and "more" not in before.user_attrs

    def test_trials_are_filtered_by_state(self, study: optuna.Study) -> None:
        study.tell(start(study), 0.5)
        start(study)
        assert [trial.number for trial in study.get_trials(states=(TrialState.RUNNING,))] == [1]

    def test_other_studies_are_refused(self, study: optuna.Study) -> None:
        with pytest.raises(KeyError, match="this storage holds study"):
            write_through(study).get_all_trials(study._study_id + 1)

    def test_a_finished_trial_cannot_be_changed(self, study: optuna.Study) -> None:
        trial = start(study)
        study.tell(trial, 0.5)
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            trial.set_user_attr("late", 1)
        assert_same(study)
