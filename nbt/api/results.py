"""Results of a search and of a training with known settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.checks import CheckResult
from nbt.metrics import METRICS
from nbt.settings import TransferSettings
from nbt.tuning.intervals import Interval, difference_interval, interval_json, value_interval
from nbt.tuning.storage.records import FinalRun, StudyRecord, TestRecord

if TYPE_CHECKING:
    import pandas as pd

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

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types: study, report, recommended settings, values of the metric, and cost."""
        from nbt.report.study.calibration import study_calibration

        record = self.record
        final, metric = record.final(record.recommended or ""), METRICS[record.config.metric]
        versus = None if final is None else final.versus_default
        if final is not None and versus is not None:
            versus = difference_interval(versus, metric, final.validation.mean - versus.mean)
        calibration = study_calibration(record)
        return {
            "study": record.config.name,
            "report": str(self.report_path),
            "recommended": self.recommended.to_dict(),
            "metric": metric.name,
            "validation": None if final is None else interval_json(value_interval(final.validation, metric)),
            "versus_default": None if versus is None else interval_json(versus),
            "validation_metrics": {} if final is None else _mean_metrics(final.runs),
            "verdict": record.verdict,
            "test": {test.name: interval_json(test.accuracy) for test in record.test},
            "trials": {end: count for end, count in record.counts().items() if end != "running"},
            "epochs": {"spent": record.epochs_spent, "budget": record.epochs_budget},
            "seconds": record.seconds_spent,
            "calibration": None if calibration is None else dataclasses.asdict(calibration),
            "clock": dict(record.clock),
            "checks": [result.to_dict() for result in self.checks],
        }


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
        test: Test result of the model that was trained on the training and validation images.
        export: Folder of the exported model, or None.
        calibration: Calibration of the model, fitted on the runs; None without predictions of the test images.
    """

    settings: TransferSettings
    runs: tuple[FinalRun, ...]
    validation: Interval
    test: TestRecord
    export: Path | None
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types."""
        return {
            "settings": self.settings.to_dict(),
            "validation": interval_json(self.validation),
            "seeds": [{"seed": run.seed, "val_accuracy": run.val_accuracy, "metrics": run.values} for run in self.runs],
            "validation_metrics": _mean_metrics(self.runs),
            "test": {**interval_json(self.test.accuracy), "loss": self.test.loss, "images": self.test.n},
            "calibration": None if self.calibration is None else dataclasses.asdict(self.calibration),
            "model": None if self.export is None else str(self.export),
        }
