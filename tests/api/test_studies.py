from __future__ import annotations

import math
from pathlib import Path

import pytest

from nbt.api import studies
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.studies import read_study, resolve_storage
from tests.tuning.fakes import FakeEngine, make_controller, open_fake_study


def searched(folder: Path, metric: str) -> StudyRecord:
    with open_fake_study(folder, "3", metric=metric) as store:
        controller = make_controller(store, "3")
        FakeEngine().run(controller)
        controller.close()
    return read_study(resolve_storage(None, folder), "fake")


@pytest.mark.parametrize(("metric", "best"), [("accuracy", max), ("log_loss", min)])
def test_the_best_value_is_that_of_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, best: type[max]
) -> None:
    record = searched(tmp_path, metric)
    values = [trial.curve[-1].value(metric) for trial in record.trials if trial.state == "complete"]
    monkeypatch.chdir(tmp_path)
    assert studies()[0]["best"] == pytest.approx(best(values))
    assert studies()[0]["metric"] == metric


def test_a_study_without_trials_has_no_best_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_fake_study(tmp_path, metric="log_loss").close()
    monkeypatch.chdir(tmp_path)
    assert studies()[0]["best"] is None
    assert not math.isnan(studies()[0]["created"].timestamp())
