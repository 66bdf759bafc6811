"""Part of `bench_engines.py`: what the brain takes to decide, with thousands of trials behind it and many beside it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import nbt
from nbt.api._prepared_search import make_study_config
from nbt.fit.profile_builder import profile_fit
from nbt.settings import TransferSettings
from nbt.task.summary import dataset_summary
from nbt.tracking import Tracker
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.budget import Budget
from nbt.tuning.controller import SearchController
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.samplers.bayesian import recommend_settings
from nbt.tuning.space.applicability import applicable_space
from nbt.tuning.space.space import Space
from nbt.tuning.storage.studies import open_study
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler

EPOCHS = 12
# What of the store writes; the rest of a call decides.
WRITES = ("write_plan", "report", "write_progress", "finish", "put")


class TimedController:
    """A study's brain as a spec source, with the seconds of each call and, apart, of its writes.

    Attributes:
        brain: As `nbt search --dataset digits` makes it, with any number of trials as budget.
        seconds: Of every call by name: those of the brain, "proposal" for the sampler's part of `next_job`, and writes
            with the name of the store's method after a dot.
        finished: Trials that have ended.
    """

    def __init__(self, brain: SearchController, store: StudyStore) -> None:
        self.brain = brain
        self.seconds: dict[str, list[float]] = {}
        self.finished = sum(trial.state.is_finished() for trial in store.trials())
        for name in WRITES:
            setattr(store, name, self._timed(f"store.{name}", getattr(store, name)))
        proposer = store.study.sampler
        proposer.sample_relative = self._timed("proposal", proposer.sample_relative)  # type: ignore[method-assign]
        self.next_trial = self._timed("next_job", brain.next_trial)
        self.on_epoch = self._timed("on_epoch", brain.on_epoch)
        self._done = self._timed("on_done", brain.on_done)
        self.on_placed = brain.on_placed
        self.on_abandoned = brain.on_abandoned

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Passes an end on."""
        self._done(spec, outcome)
        self.finished += 1

    def take(self) -> dict[str, list[float]]:
        """Returns the seconds since the last time that this was asked."""
        found, self.seconds = self.seconds, {}
        return found

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds.setdefault(name, []).append(time.perf_counter() - started)

        return timed


@contextmanager
def open_controller(
    folder: Path, *, name: str = "brain", epochs: int = EPOCHS, tracked: bool = False
) -> Iterator[TimedController]:
    """Opens the brain of a search on digits with everything at its default, in a study of `folder`.

    Args:
        folder: Of the storage; a study that is there goes on.
        name: Of the study.
        epochs: Of a full trial.
        tracked: Whether its MLflow runs are written, too.
    """
    task = nbt.load_task("digits")
    space = applicable_space(Space.load("non_binary"), task)
    facts = dataset_summary(task)
    config = make_study_config(task, space, name, epochs)
    url = f"sqlite:///{folder.resolve() / 'studies.db'}"
    budget = Budget.parse(1_000_000)
    with ExitStack() as stack:
        store = stack.enter_context(open_study(url, config, budget=budget.text, pruner="fit", dataset=facts))
        if store.record().profile is None:
            store.put_profile(profile_fit(task).to_dict())
        target = Target.of(facts, store.record().profile, epochs)
        transferred_priors = TransferredPriors(load_experience(None, space))
        surrogate = transferred_priors.surrogate(target, space)
        tracker = [Tracker(f"sqlite:///{folder.resolve() / 'mlflow.db'}", reports=folder)] if tracked else []
        brain = SearchController(
            store,
            space,
            budget=budget,
            pruner=transferred_priors.pruner(target, length=epochs, seed=config.seed),
            sampler=lambda seed: make_sampler(surrogate, seed),
            recommended=[("profile and experience", recommend_settings(surrogate, space))],
            observers=tracker,
        )
        stack.callback(brain.close)
        yield TimedController(brain, store)


def accuracy(settings: TransferSettings, seed: int) -> float:
    """Returns what a trial that is not trained would reach: best at middling rates, with the noise of 200 images."""
    away = abs(np.log10(settings.head_lr) + 1.2) + abs(np.log10(settings.body_lr) + 2.0) + settings.frozen_depth
    best = 0.97 - 0.06 * away - 0.2 * (1.0 - settings.transfer_depth)
    return float(np.clip(best + 0.015 * np.random.default_rng(seed).standard_normal(), 0.2, 1.0))


def simulated_epoch(spec: TrialSpec, epoch: int) -> EpochResult:
    """Returns an epoch of a curve that rises to `accuracy`."""
    final = accuracy(spec.settings, spec.seed)
    reached = final - (final - 0.2) * float(np.exp(-4.0 * epoch / spec.settings.epochs))
    return EpochResult(epoch, 1.0 - reached, 1.0 - reached, round(200 * reached) / 200, 0.1)


class SimulatedEngine:
    """An engine in this process that trains nothing: every trial in turn gets an epoch.

    Trials begin some epochs apart, so that those that run at a time are not all at the same one.
    """

    def __init__(self, source: TimedController) -> None:
        self._source = source
        self._running: deque[tuple[TrialSpec, list[EpochResult]]] = deque()

    def run_until(self, finished: int, *, running: int) -> None:
        """Goes on with so many trials at a time until so many have ended in the study."""
        while self._source.finished < finished:
            while len(self._running) < running:
                self._start()
                self._step()
            self._step()

    def end_all(self) -> None:
        """Runs what runs to its end."""
        while self._running:
            self._step()

    def _start(self) -> None:
        spec = self._source.next_trial()
        assert spec is not None
        self._running.append((spec, []))

    def _step(self) -> None:
        spec, curve = self._running.popleft()
        curve.append(simulated_epoch(spec, len(curve) + 1))
        reason = self._source.on_epoch(spec, curve[-1])
        over = len(curve) == spec.settings.epochs
        if reason is None and not over:
            self._running.append((spec, curve))
        else:
            self._source.on_done(spec, TrialOutcome(curve=tuple(curve), stopped=None if over else reason))


def build(folder: Path, finished: Sequence[int]) -> list[dict[str, Any]]:
    """Searches without training, two trials at a time, and returns a row for each number of finished trials.

    A row has the calls of the hundred trials before it. What is there already is not run, and has no row, again.
    """
    rows = []
    with open_controller(folder) as source:
        engine = SimulatedEngine(source)
        for goal in finished:
            if source.finished < goal:
                engine.run_until(goal - 100, running=2)
                source.take()
                engine.run_until(goal, running=2)
                rows.append(row(source, running=2))
                print(rows[-1], flush=True)
        engine.end_all()
    return rows


def beside(folder: Path, running: Sequence[int], trials: int) -> list[dict[str, Any]]:
    """Returns a row for each number of trials that run at a time, in the study that `build` has left.

    A row has the calls of `trials` trials that end, and of those that are started in their place.
    """
    rows = []
    for count in running:
        with open_controller(folder) as source:
            engine = SimulatedEngine(source)
            # All have begun, and as many have been replaced.
            engine.run_until(source.finished + min(count, 5), running=count)
            source.take()
            engine.run_until(source.finished + trials, running=count)
            rows.append(row(source, running=count))
            print(rows[-1], flush=True)
            engine.end_all()
    return rows


def tracked(folder: Path, trials: int) -> dict[str, Any]:
    """Returns the row of a small study of its own whose MLflow runs are written, too."""
    with open_controller(folder, name="tracked", tracked=True) as source:
        engine = SimulatedEngine(source)
        engine.run_until(source.finished + 5, running=2)  # the first one makes the database
        source.take()
        engine.run_until(source.finished + trials, running=2)
        engine.end_all()
        return row(source, running=2)


def row(source: TimedController, *, running: int) -> dict[str, Any]:
    """Returns median and 95th percentile of each kind of call since the last row, in milliseconds."""
    found = {name: summary(values) for name, values in source.take().items()}
    return {"finished": source.finished, "running": running, "ms": found}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Returns number, median, mean and 95th percentile, the last three in milliseconds."""
    values = 1e3 * np.array(seconds)
    return {
        "calls": len(values),
        "median": round(float(np.median(values)), 2),
        "mean": round(float(values.mean()), 2),
        "p95": round(float(np.quantile(values, 0.95)), 2),
    }
