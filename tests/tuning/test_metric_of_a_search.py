"""The metric of a study decides which trial is best; synthetic results, no training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.metrics import METRICS
from nbt.report.study.report_data import build_report
from nbt.report.study.trials_frame import trials_frame
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.finals.finalists import choose_finalists
from nbt.tuning.finals.finals import Finals
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.stream_task import check_stream
from tests.tuning.fakes import DATASET, EPOCHS, make_controller, open_fake_study

BASELINE = {"accuracy": 0.5, "balanced_accuracy": 0.3, "macro_f1": 0.3, "auroc": 0.5, "log_loss": 2.0}
# Each of the first five trials is best by one metric, as on 10:1 data, where always guessing has a high accuracy.
RESULTS = [{**BASELINE, name: 0.9 if METRICS[name].higher_is_better else 0.2} for name in METRICS]
FACTS = {**DATASET, "effective_validation_images": 40}


def epoch(number: int, values: dict[str, float]) -> EpochResult:
    other = {name: values[name] for name in ("balanced_accuracy", "macro_f1", "auroc")}
    return EpochResult(number, 1.0, values["log_loss"], values["accuracy"], 1.0, metrics=other)


def run(source: TrialSource, results: dict[TransferSettings, dict[str, float]]) -> None:
    """Runs a source; each new recipe gets the next of `RESULTS`, and all later ones the baseline."""
    while (spec := source.next_trial()) is not None:
        values = results.setdefault(spec.settings, RESULTS[len(results)] if len(results) < len(RESULTS) else BASELINE)
        curve = tuple(epoch(i, values) for i in range(1, spec.settings.epochs + 1))
        for result in curve:
            source.on_epoch(spec, result)
        source.on_done(spec, TrialOutcome(curve=curve))


def search(folder: Path, metric: str) -> tuple[StudyRecord, list[str], float]:
    """Returns a study with its finals, the metrics by which its best trial is the best, and the best Optuna value."""
    results: dict[TransferSettings, dict[str, float]] = {}
    with open_fake_study(folder, budget="7", metric=metric, dataset=FACTS) as store:
        controller = make_controller(store, "7")
        run(controller, results)
        controller.close()
        best = store.record().ranked()[0]
        assert best.settings in [finalist.settings for finalist in choose_finalists(store.record())]
        run(Finals(store, seeds=3), results)
        value = store.study.best_value
        return store.record(), [n for n in METRICS if results[best.settings][n] != BASELINE[n]], value


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_trial_by_the_metric_is_found_and_recommended(tmp_path: Path, metric: str) -> None:
    record, best_by, value = search(tmp_path, metric)
    assert best_by == [metric]
    assert value == pytest.approx(0.9 if METRICS[metric].higher_is_better else math.exp(-0.2))
    recommended = record.final(record.recommended or "")
    assert recommended is not None and recommended.validation.mean == pytest.approx(value)
    assert recommended.runs[0].values[metric] == pytest.approx(METRICS[metric].value(value))


@pytest.mark.parametrize(("metric", "text"), [("balanced_accuracy", "90.0 %"), ("log_loss", "0.200 nats")])
def test_the_report_shows_the_value_of_the_metric_with_its_name(tmp_path: Path, metric: str, text: str) -> None:
    record, _, _ = search(tmp_path, metric)
    data = build_report(record, tmp_path)
    [tile, *_] = data["answer"].content.tiles
    assert (tile.label, tile.value) == (f"Validation {METRICS[metric].label}", text)
    for table in (data["trials"].content.table, data["finals"].content.finalists):
        assert text in {cell.text for row in table.rows for cell in row.cells}
    frame = trials_frame(record)
    assert set(frame["metric"]) == {metric} and frame["val_balanced_accuracy"].max() == 0.9


def test_the_error_of_a_mean_over_classes_is_that_of_its_effective_images(tmp_path: Path) -> None:
    noise = {metric: search(tmp_path / metric, metric)[0].noise or 0.0 for metric in ("accuracy", "balanced_accuracy")}
    assert noise["balanced_accuracy"] > 1.3 * noise["accuracy"]


def test_a_study_is_resumed_with_its_own_metric_only(tmp_path: Path) -> None:
    open_fake_study(tmp_path).close()
    open_fake_study(tmp_path, metric="accuracy").close()
    with pytest.raises(UsageError, match="metric accuracy before, auroc now"):
        open_fake_study(tmp_path, metric="auroc")


def test_a_trial_without_the_metric_fails(tmp_path: Path) -> None:
    with open_fake_study(tmp_path, metric="auroc") as store:
        controller = make_controller(store)
        spec = controller.next_trial()
        assert spec is not None
        curve = tuple(EpochResult(i, 1.0, 0.5, 0.5, 1.0, metrics={"auroc": None}) for i in range(1, EPOCHS + 1))
        for result in curve:
            controller.on_epoch(spec, result)
        controller.on_done(spec, TrialOutcome(curve=curve))
        trial = store.record().trials[0]
        assert trial.state == "failed" and "no validation AUROC" in trial.reason
        controller.close()


def test_streams_have_their_accuracy_only() -> None:
    check_stream("class", 5, "fit", "accuracy")
    with pytest.raises(UsageError, match="metric auroc: streams of tasks"):
        check_stream("class", 5, "fit", "auroc")
