"""Results of a search and of a training with known settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.checks import CheckResult
from nbt.metrics import DEFAULT_METRIC, METRICS, Metric
from nbt.object_html import short_repr, table_html
from nbt.report.formatting import pluralise
from nbt.report.metric_text import value_text
from nbt.report.settings_table import recipe_summary, study_recipe_summary
from nbt.report.study.backbones import candidates_json
from nbt.report.study.headline import verdict_line
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.result_rows import ResultRow, guess_rows, model_rows, source_rows, study_rows, validation_row
from nbt.report.study.transfer_evidence import is_transfer_advised, transfer_evidence
from nbt.settings import TransferSettings
from nbt.tuning.finals.test_results import ClassResult, TestResult, optimism, test_results
from nbt.tuning.intervals import Interval, difference_interval, interval_json, value_interval
from nbt.tuning.source_accuracies import SourceAccuracies, source_accuracies
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyRecord, TestRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from nbt.inference.model import TransferModel
    from nbt.training.calibration import Calibration


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        record: The whole study.
        report_path: The HTML report; its folder contains the other files.
    """

    record: StudyRecord
    report_path: Path

    def __repr__(self) -> str:
        rows = [f"{row.label} {' '.join(row.value.split())}" for row in study_rows(self.record)]
        facts = [f"study {self.record.config.name!r}", f"recommends {self.record.recommended}", *rows]
        return short_repr("SearchResult", [*facts, f"{len(self.record.trials)} trials"])

    def _repr_html_(self) -> str:
        failed = [(result.code, result.message, result.advice) for result in self.checks if result.is_failed]
        rows = [*study_rows(self.record), ("settings", study_recipe_summary(self.record.config, self.recommended), "")]
        report = ("report", str(self.report_path), "")
        return table_html(verdict_line(self.record), [*rows, *failed, report])

    @property
    def recommended(self) -> TransferSettings:
        """The recommended settings for `train` or `nbt.continual`; of a stream, `epochs` are those of one task."""
        from nbt.tuning.finals.finals import recommended_final

        return self.record.config.per_task_settings(recommended_final(self.record).settings)

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """The checks of data and result, failed ones first; see docs/checks.md."""
        from nbt.report.study.checks.registry import study_checks

        return study_checks(self.record)

    @property
    def trials(self) -> pd.DataFrame:
        """The trials with one row per trial, as in `trials.csv`."""
        from nbt.report.study.trials_frame import trials_frame

        return trials_frame(self.record)

    @property
    def test_classes(self) -> pd.DataFrame | None:
        """The test result by class, as in `test_classes.csv`; None without stored predictions."""
        from nbt.report.study.test_section import classes_frame

        return classes_frame(self.record)

    @property
    def test_confusion(self) -> pd.DataFrame | None:
        """The confusion matrix of the test images, as in `test_confusion.csv`; None without stored predictions."""
        from nbt.report.study.test_section import confusion_frame

        return confusion_frame(self.record)

    def plot_history(self) -> Figure:
        """Draws the value of each trial and the best so far; see `nbt.report.study.figures.draw_history`."""
        from nbt.report.study.figures import draw_history

        return draw_history(self.record)

    def plot_importances(self) -> Figure:
        """Draws which settings matter; see `nbt.report.study.figures.draw_importances`.

        Raises:
            NbtError: The study has too few trials.
        """
        from nbt.report.study.figures import draw_importances

        return draw_importances(self.record)

    def plot_confusion(self) -> Figure:
        """Draws the confusion matrix of the test images; see `nbt.report.study.figures.draw_confusion`.

        Raises:
            NbtError: No predictions are stored.
        """
        from nbt.report.study.figures import draw_confusion

        return draw_confusion(self.record)

    def model(self, device: str | None = None) -> TransferModel:
        """Loads the trained model; see `nbt.load_model`.

        Args:
            device: Device of the model; a GPU if there is one when None.

        Raises:
            UsageError: The search was of streams of tasks, or the model was removed.
        """
        from nbt.inference.model import load_model

        return load_model(self.report_path.parent / "model", device)

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types: study, report, recommended settings, values of the metric, and cost."""
        from nbt.report.study.calibration import study_calibration

        record = self.record
        results, recommendation = test_results(record), current_recommendation(record)
        final, metric = record.final(record.recommended or ""), METRICS[record.config.metric]
        calibration, source = study_calibration(record), source_accuracies(record)
        return {
            "study": record.config.name,
            "report": str(self.report_path),
            "recommended": self.recommended.to_dict(),
            "transfer": {
                "advised": is_transfer_advised(record, recommendation),
                "evidence": list(transfer_evidence(record, recommendation)),
            },
            **({"candidates": candidates_json(record)} if record.config.candidates else {}),
            "metric": metric.name,
            "validation": None if final is None else interval_json(value_interval(final.validation, metric)),
            "versus_default": None if final is None else _versus_default_json(final, metric),
            "validation_metrics": {} if final is None else _mean_metrics(final.runs),
            "verdict": record.verdict,
            "finalists": [_finalist_json(each, metric) for each in record.finals],
            "failed_finalists": dict(record.failed_finals),
            "test": {
                **{
                    test.name: _merge_test(interval_json(test.accuracy), _test_json(getattr(results, test.name)))
                    for test in record.test
                    if results is not None
                },
                "majority": None if results is None else _test_json(results.majority),
            },
            "test_difference": None if results is None else _value_json(results.difference),
            "optimism": None if results is None else _value_json(results.optimism),
            "trials": {end: count for end, count in record.counts().items() if end != "running"},
            "epochs": {"spent": record.epochs_spent, "budget": record.epochs_budget},
            "cost": {"spent": round(record.cost, 3), "budget": record.cost_budget},
            "seconds": record.seconds_spent,
            "source": None if source is None else source.to_json(),
            "calibration": None if calibration is None else dataclasses.asdict(calibration),
            "clock": dict(record.clock),
            "checks": [result.to_dict() for result in self.checks],
        }


def _finalist_json(final: FinalRecord, metric: Metric) -> dict[str, Any]:
    return {
        "name": final.name,
        "settings": final.settings.to_dict(),
        "validation": interval_json(value_interval(final.validation, metric)),
        "versus_default": _versus_default_json(final, metric),
        "diverged_runs": sum(run.diverged for run in final.runs),
        "dropped": final.dropped,
    }


def _versus_default_json(final: FinalRecord, metric: Metric) -> Any:
    """Returns the difference to the default recipe in the metric's own unit; None for the default recipe itself."""
    versus = final.versus_default
    if versus is None:
        return None
    return interval_json(difference_interval(versus, metric, final.validation.mean - versus.mean))


def _merge_test(accuracy: dict[str, Any], result: dict[str, Any] | None) -> dict[str, Any]:
    """Returns a test result in which `mean`, the name of `value` in version 0.1, is of the metric of the bounds."""
    return accuracy if result is None else {**accuracy, **result, "mean": result["value"]}


def _mean_metrics(runs: Sequence[FinalRun]) -> dict[str, float | None]:
    """Returns the mean of each metric over runs, None where a run has no value of it."""
    means: dict[str, float | None] = {}
    for name in METRICS:
        values = [value for run in runs if (value := run.values[name]) is not None]
        means[name] = math.fsum(values) / len(runs) if runs and len(values) == len(runs) else None
    return means


@dataclass(frozen=True)
class TrainResult:
    """Result of a training with known settings.

    Attributes:
        settings: The repaired settings.
        runs: One run per seed, each with its own train/validation split unless the validation images are official.
        validation: Mean validation accuracy of the runs with its interval.
        test: Test accuracy of the model that was trained on the training and validation images.
        result: All metrics of that model on the test images.
        majority: The same of always guessing the largest class.
        classes: Test result by class, as in `SearchResult.test_classes`.
        export: Folder of the exported model, or None.
        calibration: Calibration of the model, fitted on the runs; None without predictions of the test images.
        source: Source accuracy of the pretrained weights (`reference`) and of the tested model (`recommended`); None
            without images of the source.
    """

    settings: TransferSettings
    runs: tuple[FinalRun, ...]
    validation: Interval
    test: TestRecord
    result: TestResult
    majority: TestResult | None
    classes: tuple[ClassResult, ...]
    export: Path | None
    calibration: Calibration | None = None
    source: SourceAccuracies | None = None

    def __repr__(self) -> str:
        return short_repr("TrainResult", [f"{row.label} {' '.join(row.value.split())}" for row in training_rows(self)])

    def _repr_html_(self) -> str:
        model = [] if self.export is None else [("model", str(self.export), "")]
        return table_html(
            "TrainResult", [*training_rows(self), ("settings", recipe_summary(self.settings), ""), *model]
        )

    @property
    def optimism(self) -> Interval | None:
        """Validation mean minus test value, with its interval."""
        return optimism(self.validation, self.result.value)

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types."""
        return {
            "settings": self.settings.to_dict(),
            "validation": interval_json(self.validation),
            "seeds": [{"seed": run.seed, "val_accuracy": run.val_accuracy, "metrics": run.values} for run in self.runs],
            "validation_metrics": _mean_metrics(self.runs),
            "test": {
                **interval_json(self.test.accuracy),
                **(_test_json(self.result) or {}),
                "loss": self.test.loss,
                "images": self.test.n,
            },
            "majority": _test_json(self.majority),
            "optimism": _value_json(self.optimism),
            "calibration": None if self.calibration is None else dataclasses.asdict(self.calibration),
            "source": None if self.source is None else _trained_source_json(self.source),
            "model": None if self.export is None else str(self.export),
        }


def training_rows(result: TrainResult) -> list[ResultRow]:
    """Returns the results of a training with known settings as rows of text."""
    runs = pluralise(result.validation.n, "seed")
    validation = validation_row(DEFAULT_METRIC, result.validation, runs, result.optimism)
    values = {name: interval.mean for name, interval in result.result.metrics.items() if name != DEFAULT_METRIC}
    others = ", ".join(f"{METRICS[name].label} {value_text(name, value)}" for name, value in values.items())
    more = [ResultRow("other metrics", others, "")] if others else []
    source = source_rows(result.source)
    return [*model_rows(result.result), *more, *guess_rows(result.majority), validation, *source]


def _trained_source_json(source: SourceAccuracies) -> dict[str, Any]:
    document = source.to_json()
    for values in (document, document["intervals"]):
        values["model"] = values.pop("recommended")
        del values["baseline"]
    return document


def _test_json(result: TestResult | None) -> dict[str, Any] | None:
    """Returns the value of the study's metric with its interval, and those of all metrics; None stays None."""
    if result is None:
        return None
    value = {} if result.value is None else _value_json(result.value)
    metrics = {name: _value_json(interval) for name, interval in result.metrics.items()}
    rest = {} if result.without_copies is None else {"without_copies": _test_json(result.without_copies)}
    return {"metric": result.metric, "value": None, **(value or {}), "n": result.n, "metrics": metrics, **rest}


def _value_json(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else {"value": interval.mean, "low": interval.low, "high": interval.high}
