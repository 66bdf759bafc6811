"""A fake of `nbt.api` that trains nothing, and study records like those of a real search."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbt.api as real_api
from nbt.search_config import SearchConfig, option_fields
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.finals.test_results import ClassResult, TestResult
from nbt.tuning.intervals import Interval
from nbt.tuning.source_accuracies import SourceAccuracies
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyConfig, StudyRecord, TestRecord, TrialRecord
from tests.fit_profiles import make_profile

RECOMMENDED = TransferSettings(frozen_depth=0.5, head_lr=0.0312, layer_lr_shape=(-1.0, -0.5, 0.0))


def make_trial(number: int, state: str = "complete", *accuracies: float, **more: Any) -> TrialRecord:
    curve = tuple(EpochResult(i, 1.0, 1.0, accuracy, 0.5) for i, accuracy in enumerate(accuracies, 1))
    return TrialRecord(number=number, state=state, settings=TransferSettings(), curve=curve, **more)


def make_record(**changes: Any) -> StudyRecord:
    config = StudyConfig(
        name="birds",
        dataset="birds",
        backbone="conv3",
        weights="default",
        space="non_binary",
        space_hash="1",
        data_hash="2",
        weights_hash="3",
        image_size=28,
        epochs=4,
        seed=0,
    )
    values: dict[str, Any] = {
        "config": config,
        "dataset": {"validation_images": 100, "test_images": 200},
        "budget": "5",
        "epochs_budget": 20,
        "epochs_spent": 0,
        "seconds_spent": 0.0,
        "pruner": "asha",
        "trials": (),
    }
    return StudyRecord(**{**values, **changes})


def make_finished_record() -> StudyRecord:
    def final(name: str, settings: TransferSettings, mean: float, versus: Interval | None) -> FinalRecord:
        return FinalRecord(
            name=name,
            trial=1,
            settings=settings,
            runs=(FinalRun(seed=1, curve=(), fold=1),),
            validation=Interval(mean=mean, low=mean - 0.01, high=mean + 0.01, n=5),
            versus_default=versus,
        )

    better = Interval(mean=0.03, low=0.01, high=0.05, n=5)
    return make_record(
        trials=(make_trial(0, "complete", 0.5), make_trial(1, "complete", 0.8), make_trial(2, "pruned", 0.2)),
        epochs_spent=18,
        seconds_spent=75.0,
        finals=(
            final("trial 1", RECOMMENDED, 0.81, better),
            final("default recipe", TransferSettings(), 0.78, None),
        ),
        recommended="trial 1",
        verdict="It is better than the default recipe",
        test=(
            TestRecord(name="recommended", accuracy=Interval(mean=0.79, low=0.73, high=0.84, n=200), loss=0.5, n=200),
            TestRecord(name="baseline", accuracy=Interval(mean=0.76, low=0.7, high=0.82, n=200), loss=0.6, n=200),
        ),
        test_evaluations=1,
    )


SUMMARY = {
    "name": "birds",
    "dataset": "b",
    "backbone": "conv3",
    "space": "binary",
    "budget": "5",
    "trials": {"complete": 2, "pruned": 1, "failed": 0, "interrupted": 0, "running": 0},
    "metric": "accuracy",
    "best": 0.8,
    "finished": True,
    "created": datetime(2030, 1, 2, tzinfo=UTC),
}


def make_source(name: str, text: str, value: str, because: str, *, holds: bool) -> dict[str, Any]:
    """Returns a source of a recommendation with one statement."""
    statement = {"text": text, "because": because, "value": value, "holds": holds}
    return {"name": name, "words": text, "origin": "a paper", "mean": 0.1, "spread": 0.1, "statements": [statement]}


SOURCES = [
    make_source("enough steps", "batch_size is at most 32", "32", "few steps", holds=True),
    make_source("moderate head rate", "a low rate", "0.5", "a test", holds=False),
]


@dataclass
class FakeSearchResult:
    record: StudyRecord
    recommended: TransferSettings
    report_path: Path

    def to_json(self) -> dict[str, Any]:
        return {"study": self.record.config.name, "loss": float("nan"), "report": self.report_path}


@dataclass
class FakeTrainResult:
    validation: Interval
    test: TestRecord
    result: TestResult
    majority: TestResult | None = None
    classes: tuple[ClassResult, ...] = ()
    optimism: Interval | None = None
    source: SourceAccuracies | None = None

    def to_json(self) -> dict[str, Any]:
        return {"validation": self.validation, "test": self.test}


class FakeApi(types.ModuleType):
    """Records its calls, which must fit the real signatures; tests set its results and side effects."""

    def __init__(self) -> None:
        super().__init__("nbt.api")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.before: Callable[[dict[str, Any]], None] = lambda options: None
        record = make_finished_record()
        self.results: dict[str, Any] = {
            "search": FakeSearchResult(record, RECOMMENDED, Path("reports/birds/report.html")),
            "train": FakeTrainResult(
                Interval(mean=0.8, low=0.7, high=0.9, n=3),
                record.test[0],
                TestResult(metric="accuracy", metrics={"accuracy": record.test[0].accuracy}, n=200),
            ),
            "fit": [make_profile()],
            "recommend": real_api.Recommendation(
                RECOMMENDED, {"sources": SOURCES, "silent": [], "tables": [], "unjudged": ["stall"]}
            ),
            "report": Path("reports/birds/report.html"),
            "compare": None,
            "sync": {"written": 3, "kept": 2},
            "studies": [SUMMARY],
            "study_recipe": (RECOMMENDED, SearchConfig(dataset="digits")),
            "predict": [],
            "evaluate": None,
            "export": None,
        }
        for name in self.results:
            setattr(self, name, self._answer(name))

    def _answer(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(real_api, name))

        def answer(*arguments: Any, **options: Any) -> Any:
            bound = signature.bind(*arguments, **options)
            known = option_fields() if name == "search" else real_api.TaskOptions.__annotations__
            assert set(bound.arguments.get("options", {})) <= set(known)
            self.calls.append((name, arguments, options))
            self.before(options)
            return self.results[name]

        return answer
