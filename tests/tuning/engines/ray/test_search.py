"""Searches on Ray: the same trials as with the local engine, resumption with the other engine, and invalid input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbt
from nbt.errors import UsageError
from nbt.task.task import Task
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.tuning.engines.local_ray import local_ray

QUICK: dict[str, Any] = {"epochs": 2, "final_seeds": 2, "pruner": "asha", "heuristics": False}


@pytest.fixture(scope="module", autouse=True)
def ray_instance() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(scope="module")
def task() -> Task:
    return nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def comparable_fields(trial: TrialRecord) -> tuple[Any, ...]:
    curve = [(epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.val_accuracy) for epoch in trial.curve]
    return trial.number, trial.state, trial.origin, trial.settings, curve


def search(task: Task, study: str, engine: str, budget: int) -> StudyRecord:
    return nbt.search(task, budget=budget, study=study, engine=engine, **QUICK).record


def test_both_engines_give_the_same_trials_and_resume_each_other(task: Task, working_folder: Path) -> None:
    here, there = search(task, "here", "local", 5), search(task, "there", "ray", 5)
    assert [comparable_fields(trial) for trial in here.trials] == [comparable_fields(trial) for trial in there.trials]
    assert here.epochs_spent == there.epochs_spent
    assert here.recommended == there.recommended
    assert [test.accuracy for test in here.test] == [test.accuracy for test in there.test]
    fact_names = {"node", "worker", "device", "precision"}
    for local_trial, ray_trial in zip(here.trials, there.trials, strict=True):
        for name in fact_names:
            assert local_trial.facts[name] == ray_trial.facts[name]
    for study in ("here", "there"):
        folder = working_folder / "reports" / study
        assert {path.name for path in (folder / "model").iterdir()} == {
            "README.md",
            "model.json",
            "weights.safetensors",
        }

    here, there = search(task, "here", "ray", 7), search(task, "there", "local", 7)
    assert len(here.trials) > 5
    assert [comparable_fields(trial) for trial in here.trials] == [comparable_fields(trial) for trial in there.trials]
    assert not any(trial.state == "running" for trial in (*here.trials, *there.trials))


def search_stream(task: Task, study: str, engine: str, budget: int) -> StudyRecord:
    options = {"epochs": 1, "scenario": "class", "tasks": 2, "space": "continual", "final_seeds": 2}
    return nbt.search(task, budget=budget, study=study, engine=engine, **options).record


@pytest.mark.slow
def test_streams_give_the_same_trials_with_both_engines(task: Task) -> None:
    here, there = search_stream(task, "here", "local", 3), search_stream(task, "there", "ray", 3)
    assert [comparable_fields(trial) for trial in here.trials] == [comparable_fields(trial) for trial in there.trials]
    assert [trial.state for trial in there.trials] == ["complete"] * 3
    assert [[epoch.val_accuracy is None for epoch in trial.curve] for trial in there.trials] == [[True, False]] * 3
    assert here.recommended == there.recommended
    assert [(test.name, test.accuracy) for test in here.test] == [(test.name, test.accuracy) for test in there.test]

    here, there = search_stream(task, "here", "ray", 4), search_stream(task, "there", "local", 4)
    assert len(here.trials) == 4
    assert [comparable_fields(trial) for trial in here.trials] == [comparable_fields(trial) for trial in there.trials]


@pytest.mark.slow
def test_a_gpu_that_no_node_has_writes_nothing(task: Task, working_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"gpus_per_trial 1: no node has a GPU; the cluster has .*: 2 CPU, 0 GPU"):
        nbt.search(task, budget=3, engine="ray", gpus_per_trial=1, **QUICK)
    assert list(working_folder.iterdir()) == []


def test_several_backbones_give_the_same_trials_as_the_local_engine(tmp_path: Path) -> None:
    backbones = [("conv3(width=8)", "none"), {"name": "conv4(width=8)", "weights": "none", "image_size": 32}]
    options: dict[str, Any] = {
        "backbones": backbones,
        "image_size": 28,
        "shots": 24,
        "budget": 6,
        "experience": tmp_path,
        **QUICK,
    }
    here = nbt.search("digits", study="here", engine="local", workers=1, **options).record
    there = nbt.search("digits", study="there", engine="ray", workers=1, **options).record
    assert [comparable_fields(trial) for trial in here.trials] == [comparable_fields(trial) for trial in there.trials]
    assert {trial.settings.backbone for trial in there.trials} == {"", "conv4(width=8)"}
    assert here.recommended == there.recommended
    several = nbt.search("digits", study="several", engine="ray", workers=2, **options).record
    assert several.recommended is not None
