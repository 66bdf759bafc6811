"""Results in notebooks: short texts, HTML and figures."""

from __future__ import annotations

import dataclasses
import json
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbt
from nbt.api import ContinualOutcome, SearchResult, TrainResult
from nbt.errors import NbtError, UsageError
from nbt.report.streams.comparison import compare_methods
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.results import EpochResult
from nbt.tuning.finals.test_results import TestResult
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import FinalRun, StudyRecord, TestRecord
from tests.fit_profiles import make_profile
from tests.sample_stream import make_stream
from tests.sample_study import BEST, evaluated_study, sample_study, with_config


def make_result(**changes: Any) -> SearchResult:
    record = dataclasses.replace(sample_study(), **changes)
    return SearchResult(record, Path("reports/study/report.html"))


@pytest.fixture(scope="module")
def task() -> Task:
    return nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


def test_reprs_are_short(task: Task) -> None:
    result = make_result()
    assert len(dataclasses.asdict(result)["record"]["trials"]) == 18
    for value in (task, make_profile(), BEST, result, result.record):
        assert len(repr(value)) < 300, type(value).__name__
    assert repr(result).startswith(
        "SearchResult(study 'cub-mobilenet_v2-non_binary', recommends trial 12, test accuracy 69.5 % [66.8, 72.1], "
        "default recipe 65.1 % [62.3, 67.8], "
    )
    assert repr(task).startswith("Task(digits, conv3(width=8), weights none, 5 classes, ")


def test_settings_show_what_differs_from_the_defaults() -> None:
    assert repr(TransferSettings()) == "TransferSettings()"
    settings = TransferSettings(frozen_depth=0.5, layer_lr_shape=(-1.0, -0.5, 0.0))
    assert eval(repr(settings)) == settings
    assert "<td" in settings._repr_html_() and "layer_lr_shape" in settings._repr_html_()
    assert "head_lr" not in settings._repr_html_()


def test_json_lists_the_finalists() -> None:
    record = sample_study()
    diverged = EpochResult(2, float("inf"), None, None, 2.2, diverged=True)
    best, second, *others = record.finals
    runs = tuple(dataclasses.replace(run, curve=(diverged,)) for run in second.runs[:1])
    finals = (
        best,
        dataclasses.replace(second, runs=(*runs, *second.runs[1:]), dropped="too far below the best"),
        *others,
    )
    result = make_result(finals=finals, failed_finals={"trial 3": "out of memory"})
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    listed = {each["name"]: each for each in document["finalists"]}
    assert list(listed) == [final.name for final in record.finals]
    assert listed[best.name]["validation"] == document["validation"]
    assert listed[best.name]["versus_default"] == document["versus_default"]
    assert TransferSettings.from_dict(listed[best.name]["settings"]) == best.settings
    assert listed["default recipe"]["versus_default"] is None
    assert [each["diverged_runs"] for each in document["finalists"]] == [0, 1, *([0] * len(others))]
    assert listed[second.name]["dropped"] == "too far below the best"
    assert document["failed_finalists"] == {"trial 3": "out of memory"}


def test_html_has_the_result_and_is_escaped() -> None:
    record = with_config(sample_study(), name="<b>birds</b>")
    html = SearchResult(record, Path("reports/<i>/report.html"))._repr_html_()
    assert "69.5 %  [66.8, 72.1]" in html and "default recipe" in html and "depth 0.80" in html
    assert "&lt;b&gt;birds&lt;/b&gt;, final runs on validation images: Trial 12 is" in html and "&lt;i&gt;" in html
    assert "<b>" not in html and "<i>" not in html


def test_failed_checks_are_in_the_html() -> None:
    result = make_result(recommended="default recipe")
    [failed, *_] = [check for check in result.checks if check.is_failed]
    assert failed.code in result._repr_html_() and failed.advice in unescape(result._repr_html_())


def test_a_training() -> None:
    accuracy = Interval(mean=0.79, low=0.73, high=0.84, n=200)
    result = TrainResult(
        settings=TransferSettings(),
        runs=(FinalRun(seed=0, curve=()),),
        validation=Interval(mean=0.8, low=0.7, high=0.9, n=3),
        test=TestRecord(name="test", accuracy=accuracy, loss=0.5, n=200),
        result=TestResult(metric="accuracy", metrics={"accuracy": accuracy}, n=200),
        majority=None,
        classes=(),
        export=Path("<model>"),
    )
    assert repr(result) == "TrainResult(test accuracy 79.0 % [73.0, 84.0], validation 80.0 % [70.0, 90.0])"
    assert "79.0 %  [73.0, 84.0]" in result._repr_html_() and "&lt;model&gt;" in result._repr_html_()


def test_streams() -> None:
    comparison = compare_methods([make_stream("dlcft"), make_stream("ewc")], "")
    outcome = ContinualOutcome(comparison, Path("reports/<b>/report.html"))
    assert len(repr(outcome)) < 300
    assert repr(outcome).startswith("ContinualOutcome(birds, ") and ", dlcft " in repr(outcome)
    assert '<td style="text-align: left">ewc</td>' in outcome._repr_html_() and "<b>" not in outcome._repr_html_()


def test_the_profile(task: Task) -> None:
    profile = make_profile()
    assert repr(profile).startswith("FitProfile(")
    assert "ridge_accuracy" in profile._repr_html_()
    assert profile.plot()._repr_png_().startswith(b"\x89PNG")
    assert "training, " in task._repr_html_()


class TestFigures:
    def test_history(self) -> None:
        [axes] = make_result().plot_history().axes
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert {"full length", "best so far", "trial 12, recommended"} <= lines.keys()
        best = lines["best so far"].get_ydata()
        assert np.all(np.diff(best) >= 0)
        assert best[-1] == max(trial.val_accuracy or 0.0 for trial in sample_study().trials)

    def test_importances(self) -> None:
        result = make_result(importance={"head_lr": 0.2, "frozen_depth": 0.7, "mixup": float("nan")})
        [axes] = result.plot_importances().axes
        assert [text.get_text() for text in axes.get_yticklabels()] == ["head_lr", "frozen_depth"]
        assert [bar.get_width() for bar in axes.patches] == [0.2, 0.7]
        assert not axes.get_lines()
        bounds = {"head_lr": (0.1, 0.3)}
        importance = {"head_lr": 0.2, "frozen_depth": 0.7}
        [axes] = make_result(importance=importance, load_importance_bounds=lambda: bounds).plot_importances().axes
        assert [tuple(line.get_xdata()) for line in axes.get_lines()] == [(0.1, 0.3)]
        with pytest.raises(NbtError, match="too few trials"):
            make_result(importance={}).plot_importances()

    def test_confusion(self) -> None:
        result = SearchResult(evaluated_study(classes=5), Path("report.html"))
        frame = result.test_confusion
        assert frame is not None
        axes, _ = result.plot_confusion().axes
        assert [text.get_text() for text in axes.get_xticklabels()] == [str(name)[:26] for name in frame.columns]
        shares = axes.images[0].get_array()
        np.testing.assert_allclose(shares.sum(axis=1), 1.0)
        assert {text.get_text() for text in axes.texts} == {str(n) for n in frame.to_numpy().ravel() if n}
        without: StudyRecord = dataclasses.replace(result.record, load_predictions=lambda run: None)
        with pytest.raises(NbtError, match="no predictions of the test images are stored"):
            SearchResult(without, result.report_path).plot_confusion()

    def test_nothing_to_draw(self) -> None:
        with pytest.raises(NbtError, match="no trial has a value to draw"):
            make_result(trials=()).plot_history()


def test_the_model_is_that_of_the_report(tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "artifacts" / "c8d5bce" / "finished" / "report"
    model = SearchResult(sample_study(), folder / "report.html").model("cpu")
    assert type(model).__name__ == "TransferModel"
    with pytest.raises(UsageError):
        SearchResult(sample_study(), tmp_path / "report.html").model()
