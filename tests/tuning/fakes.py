"""Searches without training: an engine in this process that simulates learning curves, and studies for it."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nbt.settings import TransferSettings
from nbt.training.export.model_folder import CARD_FILE, WEIGHTS_FILE
from nbt.training.metrics import Predictions
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.budget import Budget
from nbt.tuning.controller import SearchController
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.pruners.base import make_pruner
from nbt.tuning.space.space import Space
from nbt.tuning.storage.database import close, connect
from nbt.tuning.storage.records import StudyConfig, StudyObserver, StudyRecord, TrialRecord
from nbt.tuning.storage.studies import open_study, read_study, resolve_storage
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.storage.study_writer import StudyWriter
from tests.predictions import fake_predictions

EPOCHS = 6
DATASET = {"train_images": 200, "validation_images": 100, "test_images": 150, "classes": 5}


class DriverKilled(BaseException):
    """Simulates the death of the driver: no cleanup runs and nothing is notified."""


def config(name: str = "fake", **changes: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": name,
        "dataset": "digits",
        "backbone": "conv3",
        "weights": "default",
        "space": "non_binary",
        "space_hash": "s1",
        "data_hash": "d1",
        "weights_hash": "w1",
        "image_size": 32,
        "epochs": EPOCHS,
        "seed": 0,
    }
    return StudyConfig(**{**values, **changes})


def open_fake_study(folder: Path, budget: str = "10", **changes: Any) -> StudyStore:
    """Opens the study "fake" in `folder`."""
    options = {key: changes.pop(key) for key in ("fresh", "notes", "dataset", "contents") if key in changes}
    url = changes.pop("url", None) or resolve_storage(None, folder)
    flush_seconds = changes.pop("flush_seconds", 0.0)  # by default, a killed search loses nothing
    store = open_study(url, config(**changes), budget=budget, pruner="none", **{"dataset": DATASET, **options})
    writer(store).flush_seconds = flush_seconds
    return store


def writer(store: StudyStore) -> StudyWriter:
    assert store._writer is not None
    return store._writer


@cache
def _empty_database() -> bytes:
    """Returns a database with Optuna's tables, whose creation takes longer than a small search."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "studies.db"
        close(connect(f"sqlite:///{file}"))
        return file.read_bytes()


def _copy_empty_database(file: Path) -> None:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_empty_database())


def make_controller(store: StudyStore, budget: str = "10", *, pruner: str = "none", **options: Any) -> SearchController:
    """Returns a controller over the non-binary space."""
    return SearchController(
        store,
        options.pop("space", None) or Space.load("non_binary"),
        budget=Budget.parse(budget),
        pruner=make_pruner(pruner, store.config.epochs),
        **options,
    )


def kill(store: StudyStore) -> None:
    """Releases the lock and connections of a store, as the operating system does for a killed process."""
    writer(store)._pop_changes()
    writer(store).close()


def hashed_uniform(*names: object) -> float:
    """Returns a number in 0 ... 1 that depends only on `names`."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def final_accuracy(settings: TransferSettings) -> float:
    """Returns the final accuracy of a recipe without noise, highest at a head rate of 0.1 and frozen depth 0.5."""
    distance = abs(math.log10(settings.head_lr) + 1) + abs(settings.frozen_depth - 0.5)
    return max(0.05, 0.9 - 0.25 * distance)


def simulate(spec: TrialSpec) -> list[EpochResult]:
    """Returns a rising curve that ends at the recipe's `final_accuracy` plus noise that depends on the seeds."""
    length = spec.settings.epochs
    end = min(1.0, final_accuracy(spec.settings) + 0.01 * (hashed_uniform(spec.seed, spec.split_seed) - 0.5))
    return [
        EpochResult(
            epoch,
            2.0 / epoch,
            1.0 - end * epoch / length,
            end * (0.5 + 0.5 * epoch / length),
            1.0,
            metrics={"balanced_accuracy": end / epoch, "auroc": None},
        )
        for epoch in range(1, length + 1)
    ]


def _predict(spec: TrialSpec, curve: Sequence[EpochResult]) -> Predictions | None:
    if curve[-1].diverged:
        return None
    if spec.evaluate_test:
        return fake_predictions(final_accuracy(spec.settings), DATASET["test_images"], seed=spec.seed)
    return fake_predictions(curve[-1].val_accuracy or 0.0, DATASET["validation_images"], seed=spec.seed)


@dataclass
class FakeClock:
    """A clock that changes only when `now` is set."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class _RunningTrial:
    spec: TrialSpec
    remaining: list[EpochResult]
    curve: list[EpochResult]


@dataclass
class FakeEngine:
    """Runs trials in this process, each for one epoch in turn (`nbt.tuning.engines.base.Engine`).

    Attributes:
        workers: Number of simultaneous trials.
        simulate: Specification -> whole curve.
        outcome: Specification and curve -> outcome; None for the default outcome.
        clock: Clock that is advanced by the seconds of each epoch; None for none.
        kill_after: Number of epochs after which `DriverKilled` is raised.
        interrupt_after: Number of epochs after which KeyboardInterrupt is raised.
        requeue_once: Keys of trials that run out of memory once, after their first epoch.
        keep_checkpoints: Interval in epochs at which the number of epochs is written as checkpoint; 0 writes none.
        specs: All specifications that were started.
        stopped: Key -> reason, for trials that the source stopped.
        epochs: Number of epochs run.
    """

    workers: int = 1
    simulate: Callable[[TrialSpec], list[EpochResult]] = simulate
    outcome: Callable[[TrialSpec, tuple[EpochResult, ...]], TrialOutcome | None] = lambda spec, curve: None
    clock: FakeClock | None = None
    kill_after: int | None = None
    interrupt_after: int | None = None
    requeue_once: set[str] = field(default_factory=set)
    keep_checkpoints: int = 1
    specs: list[TrialSpec] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)
    epochs: int = 0

    def run(self, source: TrialSource) -> None:
        running: list[_RunningTrial] = []
        try:
            while True:
                while len(running) < self.workers and (spec := source.next_trial()) is not None:
                    self.specs.append(spec)
                    running.append(self._open(spec))
                if not running:
                    return
                for run in list(running):
                    if self._step(run, source):
                        running.remove(run)
        except KeyboardInterrupt:
            for run in running:
                source.on_abandoned(run.spec)
            raise

    def close(self) -> None:
        pass

    def _open(self, spec: TrialSpec) -> _RunningTrial:
        curve = self.simulate(spec)
        done = int(spec.checkpoint.read_text()) if spec.checkpoint is not None and spec.checkpoint.exists() else 0
        return _RunningTrial(spec, curve[done:], curve[:done])

    def _step(self, run: _RunningTrial, source: TrialSource) -> bool:
        """Runs an epoch; returns whether the trial has ended."""
        reason = None
        if run.remaining:
            result = run.remaining.pop(0)
            run.curve.append(result)
            if self.clock is not None:
                self.clock.now += result.seconds / self.workers
            reason = source.on_epoch(run.spec, result)
            self.epochs += 1
            self._write_checkpoint(run)
            if self.epochs == self.kill_after:
                raise DriverKilled
            if self.epochs == self.interrupt_after:
                raise KeyboardInterrupt
            if run.spec.key in self.requeue_once:
                self.requeue_once.remove(run.spec.key)
                source.on_abandoned(run.spec)
                return True
        if run.remaining and reason is None and not result.diverged:
            return False
        self._end(run, source, reason)
        return True

    def _write_checkpoint(self, run: _RunningTrial) -> None:
        path, done = run.spec.checkpoint, len(run.curve)
        if path is not None and run.remaining and self.keep_checkpoints and done % self.keep_checkpoints == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(done))

    def _end(self, run: _RunningTrial, source: TrialSource, reason: str | None) -> None:
        spec, curve = run.spec, tuple(run.curve)
        if reason is not None:
            self.stopped[spec.key] = reason
        outcome = self.outcome(spec, curve)
        if outcome is None:
            tested = spec.evaluate_test and reason is None
            outcome = TrialOutcome(
                curve=curve,
                stopped=reason,
                test_accuracy=final_accuracy(spec.settings) if tested else None,
                test_loss=0.5 if tested else None,
                predictions=_predict(spec, curve) if spec.keep_predictions and reason is None else None,
            )
        if spec.export is not None and outcome.error is None:
            spec.export.mkdir(parents=True, exist_ok=True)
            (spec.export / CARD_FILE).write_text(json.dumps({"settings": spec.settings.to_dict()}))
            (spec.export / WEIGHTS_FILE).write_text("weights")
        if spec.checkpoint is not None and outcome.error is None:
            spec.checkpoint.unlink(missing_ok=True)
        source.on_done(spec, outcome)


class RecordingObserver(StudyObserver):
    """Records all events."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.trials: list[TrialRecord] = []
        self.records: list[StudyRecord] = []

    def study_started(self, record: StudyRecord) -> None:
        self.records.append(record)
        self.events.append(("study_started",))

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        self.events.append(("trial_started", number, origin))

    def trial_placed(self, number: int, location: Mapping[str, Any]) -> None:
        self.events.append(("trial_placed", number, dict(location)))

    def epoch_finished(self, number: int, result: EpochResult, spent: float) -> None:
        self.events.append(("epoch_finished", number, result.epoch, spent))

    def trial_finished(self, trial: TrialRecord) -> None:
        self.trials.append(trial)
        self.events.append(("trial_finished", trial.number, trial.state))

    def finals_started(self, runs: int, finalists: Sequence[str]) -> None:
        self.events.append(("finals_started", runs, tuple(finalists)))

    def final_run_finished(self, candidate: str, run: Any) -> None:
        self.events.append(("final_run_finished", candidate, run.seed))


def run_search(folder: Path, budget: str, engine: FakeEngine | None = None, **options: Any) -> StudyRecord:
    """Runs a simulated search and returns the record of the study."""
    with open_fake_study(folder, budget) as store:
        controller = make_controller(store, budget, checkpoints=folder / "checkpoints", **options)
        try:
            (engine or FakeEngine()).run(controller)
        finally:
            controller.close()
        return store.record()


@cache
def _searched_database(budget: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        run_search(Path(folder), budget)
        return (Path(folder) / ".nbt" / "studies.db").read_bytes()


def copy_searched_study(folder: Path, budget: str) -> StudyRecord:
    """Copies a study of `run_search`, which is run once for all tests, to `folder` and returns its record."""
    (folder / ".nbt").mkdir(parents=True)
    (folder / ".nbt" / "studies.db").write_bytes(_searched_database(budget))
    return read_study(resolve_storage(None, folder), "fake")


def states(trials: Sequence[TrialRecord]) -> list[str]:
    return [trial.state for trial in trials]
