"""Part of `bench_engines.py`: decision times of the search controller with many finished and concurrent trials."""

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
from nbt.api._strategy import SearchStrategy
from nbt.fit.profile_builder import profile_fit
from nbt.settings import TransferSettings
from nbt.task.summary import dataset_summary
from nbt.tracking import Tracker
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.budget import Budget
from nbt.tuning.controller import SearchController
from nbt.tuning.engines.cpu_threads import single_threaded
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.relative_cost import study_cost_model
from nbt.tuning.space.applicability import applicable_space
from nbt.tuning.space.space import Space
from nbt.tuning.storage.studies import open_study
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors

EPOCHS = 12
# Methods of the store that write; the rest of a call is the decision.
WRITES = ("write_plan", "report", "write_progress", "finish", "put")


class TimedController:
    """The search controller of a study as a trial source that records the duration of each call and of its writes.

    Attributes:
        controller: The controller of `nbt search --dataset digits`, with a practically unlimited budget.
        seconds: Durations of the calls by name: "next_job" for `next_trial`, "on_epoch" and "on_done" of the
            controller, "proposal" for the sampler's part of `next_trial`, and "store.METHOD" for writes.
        finished: Number of trials that have ended.
        opening_seconds: Time to open the study and its controller, without the models of experience.
    """

    def __init__(self, controller: SearchController, store: StudyStore, opening_seconds: float = 0.0) -> None:
        self.controller, self.opening_seconds = controller, opening_seconds
        self.seconds: dict[str, list[float]] = {}
        self.finished = sum(trial.state.is_finished() for trial in store.trials())
        for name in WRITES:
            setattr(store, name, self._timed(f"store.{name}", getattr(store, name)))
        sampler = store.study.sampler
        sampler.sample_relative = self._timed("proposal", sampler.sample_relative)  # type: ignore[method-assign]
        self.next_trial = self._timed("next_job", controller.next_trial)
        self.on_epoch = self._timed("on_epoch", controller.on_epoch)
        self._done = self._timed("on_done", controller.on_done)
        self.on_placed = controller.on_placed
        self.on_abandoned = controller.on_abandoned

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Forwards an outcome to the controller."""
        self._done(spec, outcome)
        self.finished += 1

    def pop_seconds(self) -> dict[str, list[float]]:
        """Returns the durations since the last call of this method."""
        seconds, self.seconds = self.seconds, {}
        return seconds

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
    """Opens the controller of a search on digits with default options, in a study of `folder`.

    Args:
        folder: Folder of the storage; an existing study is resumed.
        name: Name of the study.
        epochs: Epochs of a full trial.
        tracked: Whether MLflow runs are written, too.
    """
    task = nbt.load_task("digits")
    space = applicable_space(Space.load("non_binary"), task)
    facts = dataset_summary(task)
    config = make_study_config(task, space, name, epochs)
    searched = space.with_epochs(epochs) if epochs == EPOCHS else space  # lengths are searched as by default
    url = f"sqlite:///{folder.resolve() / 'studies.db'}"
    budget = Budget.parse(1_000_000)
    with ExitStack() as stack:
        started = time.perf_counter()
        store = stack.enter_context(open_study(url, config, budget=budget.text, pruner="fit", dataset=facts))
        opening = time.perf_counter() - started
        if store.record().profile is None:
            store.put_profile(profile_fit(task).to_dict())
        target = Target.of(facts, store.record().profile, epochs)
        transferred_priors = TransferredPriors(load_experience(None, searched))
        equal = searched.epochs is None
        pruner = transferred_priors.pruner(target, length=epochs, seed=config.seed, equal_lengths=equal)
        strategy = SearchStrategy(pruner, transferred_priors.surrogate(target, searched))
        arguments = strategy.arguments(searched, study_cost_model(config, facts))
        tracker = [Tracker(f"sqlite:///{folder.resolve() / 'mlflow.db'}", reports=folder)] if tracked else []
        started = time.perf_counter()
        controller = SearchController(
            store,
            searched,
            budget=budget,
            observers=tracker,
            **arguments,
        )
        opening += time.perf_counter() - started
        stack.callback(controller.close)
        yield TimedController(controller, store, opening)


def accuracy(settings: TransferSettings, seed: int) -> float:
    """Returns the simulated accuracy of a trial, 0.2 ... 1: highest at medium rates, with the noise of 200 images."""
    distance = abs(np.log10(settings.head_lr) + 1.2) + abs(np.log10(settings.body_lr) + 2.0) + settings.frozen_depth
    best = 0.97 - 0.06 * distance - 0.2 * (1.0 - settings.transfer_depth)
    return float(np.clip(best + 0.015 * np.random.default_rng(seed).standard_normal(), 0.2, 1.0))


def simulated_epoch(spec: TrialSpec, epoch: int) -> EpochResult:
    """Returns an epoch of a simulated curve that rises to `accuracy`."""
    final = accuracy(spec.settings, spec.seed)
    reached = final - (final - 0.2) * float(np.exp(-4.0 * epoch / spec.settings.epochs))
    return EpochResult(epoch, 1.0 - reached, 1.0 - reached, round(200 * reached) / 200, 0.1)


class SimulatedEngine:
    """An engine in this process that simulates one epoch of each running trial in turn.

    Like the real engines, it calls the controller with one thread. Trials start some epochs apart, so that concurrent
    trials are at different epochs.
    """

    def __init__(self, source: TimedController) -> None:
        self._source = source
        self._running: deque[tuple[TrialSpec, list[EpochResult]]] = deque()

    def run_until(self, finished: int, *, running: int) -> None:
        """Runs `running` concurrent trials until `finished` trials of the study have ended."""
        with single_threaded():
            while self._source.finished < finished:
                while len(self._running) < running:
                    self._start()
                    self._step()
                self._step()

    def end_all(self) -> None:
        """Runs the running trials to their end."""
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
        complete = len(curve) == spec.settings.epochs
        if reason is None and not complete:
            self._running.append((spec, curve))
        else:
            self._source.on_done(spec, TrialOutcome(curve=tuple(curve), stopped=None if complete else reason))


def grow_study(folder: Path, finished: Sequence[int]) -> list[dict[str, Any]]:
    """Searches without training, with two concurrent trials; returns one row per number of finished trials.

    A row summarises the calls of the last 100 trials. Numbers that the study has reached already get no row.
    """
    rows = []
    with open_controller(folder) as source:
        engine = SimulatedEngine(source)
        for target in finished:
            if source.finished < target:
                engine.run_until(target - 100, running=2)
                source.pop_seconds()
                engine.run_until(target, running=2)
                rows.append(summarise_calls(source, running=2))
                print(rows[-1], flush=True)
        engine.end_all()
    return rows


def time_concurrent_trials(folder: Path, running: Sequence[int], trials: int) -> list[dict[str, Any]]:
    """Returns one row per number of concurrent trials, in the study that `grow_study` has created.

    A row summarises the calls until `trials` trials have ended, including the starts of their successors.
    """
    rows = []
    for count in running:
        with open_controller(folder) as source:
            engine = SimulatedEngine(source)
            # All have started, and some have been replaced.
            engine.run_until(source.finished + min(count, 5), running=count)
            source.pop_seconds()
            engine.run_until(source.finished + trials, running=count)
            rows.append(summarise_calls(source, running=count))
            print(rows[-1], flush=True)
            engine.end_all()
    return rows


def time_tracked_trials(folder: Path, trials: int) -> dict[str, Any]:
    """Returns the row of a separate small study whose MLflow runs are written, too."""
    with open_controller(folder, name="tracked", tracked=True) as source:
        engine = SimulatedEngine(source)
        engine.run_until(source.finished + 5, running=2)  # the first trial creates the database
        source.pop_seconds()
        engine.run_until(source.finished + trials, running=2)
        engine.end_all()
        return summarise_calls(source, running=2)


def summarise_calls(source: TimedController, *, running: int) -> dict[str, Any]:
    """Returns the row of the calls since the last row: a summary of each kind of call, see `summarise_durations`."""
    milliseconds = {name: summarise_durations(values) for name, values in source.pop_seconds().items()}
    return {"finished": source.finished, "running": running, "ms": milliseconds}


def summarise_durations(seconds: Sequence[float]) -> dict[str, float]:
    """Returns the number of calls and their median, mean and 95th percentile in milliseconds."""
    values = 1e3 * np.array(seconds)
    return {
        "calls": len(values),
        "median": round(float(np.median(values)), 2),
        "mean": round(float(values.mean()), 2),
        "p95": round(float(np.quantile(values, 0.95)), 2),
    }
