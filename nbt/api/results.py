"""What a search and a training leave behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.settings import TransferSettings
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import FinalRun, StudyRecord, TestRecord

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
        record: The whole study.
        report_path: The HTML report; its folder holds everything else.
        elsewhere: As in `nbt.report.study.reproduce.commands`.
    """

    record: StudyRecord
    report_path: Path
    run_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def recommended(self) -> TransferSettings:
        """The recommended settings as `train` and `nbt.continual` take them: of a stream, `epochs` are of one task."""
        from nbt.tuning.finals.finals import recommended_final

        return self.record.config.per_task_settings(recommended_final(self.record).settings)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, as in `trials.csv`."""
        from nbt.report import trials_frame

        return trials_frame(self.record)

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types: study, report, recommendation, accuracies, what it cost."""
        record = self.record
        final = record.final(record.recommended or "")
        return {
            "study": record.config.name,
            "report": str(self.report_path),
            "recommended": self.recommended.to_dict(),
            "validation": None if final is None else interval_json(final.validation),
            "versus_default": None if final is None else interval_json(final.versus_default),
            "verdict": record.verdict,
            "test": {test.name: interval_json(test.accuracy) for test in record.test},
            "trials": {end: count for end, count in record.counts().items() if end != "running"},
            "epochs": {"spent": record.epochs_spent, "budget": record.epochs_budget},
            "seconds": record.seconds_spent,
        }


@dataclass(frozen=True)
class TrainResult:
    """What training with known settings gave.

    Attributes:
        settings: The repaired settings.
        runs: One a seed, each with its own train/validation split.
        validation: Their mean validation accuracy with its interval.
        test: The one evaluation of the model that was trained on train + validation.
        export: The model folder, if one was asked for.
    """

    settings: TransferSettings
    runs: tuple[FinalRun, ...]
    validation: Interval
    test: TestRecord
    export: Path | None

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types."""
        return {
            "settings": self.settings.to_dict(),
            "validation": interval_json(self.validation),
            "seeds": [{"seed": run.seed, "val_accuracy": run.val_accuracy} for run in self.runs],
            "test": {**interval_json(self.test.accuracy), "loss": self.test.loss, "images": self.test.n},
            "model": None if self.export is None else str(self.export),
        }


def interval_json(interval: Interval | None) -> Any:
    """Returns an interval in JSON types."""
    return None if interval is None else dataclasses.asdict(interval)
