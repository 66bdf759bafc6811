from __future__ import annotations

import math
from pathlib import Path

import pytest

from nbt.api import compare, report, studies
from nbt.errors import UsageError
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


def test_a_report_of_a_running_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_fake_study(tmp_path)
    for call in (lambda: report("fake"), lambda: compare(["fake", "other"])):
        with pytest.raises(UsageError, match=r"study fake is being searched already .*stop the search first"):
            call()
    assert not (tmp_path / "reports").exists()
    store.close()
    assert report("fake").is_file()


def test_two_studies_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        open_fake_study(tmp_path, name=name).close()
    comparison, path = compare(["a", "b"])
    assert [study.name for study in comparison.studies] == ["a", "b"]
    assert path == tmp_path / "reports" / "a+b" / "report.html" and path.is_file()
    assert report("a").is_file(), "both stay readable"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "needs two or more different studies"),
        (["a", "a"], "needs two or more different studies"),
        (["a", "none"], "unknown study 'none'"),
        (["a", "other-data"], "studies a and other-data cannot be compared: they are of different data"),
    ],
)
def test_wrong_comparisons_write_nothing(
    names: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_fake_study(tmp_path, name="a").close()
    open_fake_study(tmp_path, name="other-data", data_hash="d2").close()
    with pytest.raises(UsageError, match=message):
        compare(names)
    assert not (tmp_path / "reports").exists()
