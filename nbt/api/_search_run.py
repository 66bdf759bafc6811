"""SearchRun: the phases of a search, from the trials to the report."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._prepared_search import PreparedSearch
from nbt.api._progress_source import ProgressTrialSource
from nbt.api._strategy import SearchStrategy
from nbt.api.results import SearchResult
from nbt.errors import NbtError
from nbt.files import remove_leftovers
from nbt.models.teacher import short_teacher_names
from nbt.paths import cache_root
from nbt.settings import TransferSettings, repair
from nbt.settings.teacher_names import parse_teacher_names
from nbt.tuning.baseline_recipes import FROM_SCRATCH, baseline_recipes, from_scratch_recipe
from nbt.tuning.job_clock import FINALS, REPORT, TRAIN, TRIALS
from nbt.tuning.storage.codec import TLI_SIMILARITIES
from nbt.tuning.storage.records import StudyObserver, StudyRecord, count_ended

if TYPE_CHECKING:
    from nbt.tuning.engines.base import Engine
    from nbt.tuning.job_monitor import JobMonitor
    from nbt.tuning.storage.study_store import StudyStore

_log = logging.getLogger("nbt")

_INTERRUPTED = "interrupted: %s still being written; another Ctrl-C ends the search at once, and no trial is lost"


@dataclass(frozen=True, eq=False)
class SearchRun:
    """The phases of a search on an open study.

    Attributes:
        prepared: The checked arguments of the search.
        store: Store of the study, locked by this process.
        engine: Engine that runs the trials.
        strategy: Source of the proposals and pruner.
        observers: Observer of the study.
        monitor: Clock of the phases and estimate of the whole.
    """

    prepared: PreparedSearch
    store: StudyStore
    engine: Engine
    strategy: SearchStrategy
    observers: StudyObserver
    monitor: JobMonitor

    def run_all_phases(self) -> SearchResult:
        """Runs search, finals and retraining, and writes the report.

        If an exception ends a phase early, the report and the observers still receive the finished trials.

        Raises:
            NbtError: A phase cannot continue, or the report cannot be written.
        """
        try:
            self._run_phases((self.prepared.out / self.store.config.name / "model").resolve())
        except BaseException as error:
            self._report_interrupted(is_interrupt=isinstance(error, KeyboardInterrupt))
            raise
        path = self._report()
        return SearchResult(self.store.record(), path)

    def _report_interrupted(self, *, is_interrupt: bool) -> None:
        """Writes the report of an interrupted search; its errors must not hide the cause of the interruption."""
        with suppress(NbtError):
            record = self.store.record()
            if not record.trials:
                return
            if not count_ended(record.counts()):  # there is nothing to report yet
                self._notify_of_end(record)
                return
            if is_interrupt:
                _log.warning(_INTERRUPTED, "the report is")
            try:
                self._report(is_interrupt=is_interrupt)
            except NbtError as error:
                _log.warning("%s", error)

    def _report(self, *, is_interrupt: bool = False) -> Path:
        """Writes the report and returns its path; the observers are notified of the end even if this fails.

        Args:
            is_interrupt: Whether the search was interrupted: another interrupt ends it at once.
        """
        from nbt.report.study.write import write_report
        from nbt.tuning.engines.cpu_threads import single_threaded

        self.monitor.enter(REPORT)
        if self.prepared.progress is not None:
            self.prepared.progress("writing the report", 0, 0)
        record = self.store.record()
        try:
            with single_threaded():
                path = write_report(record, self.prepared.out).resolve()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                if is_interrupt:
                    raise
                _log.warning(_INTERRUPTED, "the MLflow runs are")
            self._notify_of_end(record)
            raise
        self._notify_of_end(record)
        return path

    def _notify_of_end(self, record: StudyRecord) -> None:
        """Notifies the observers of the end of the search, and stores the seconds of the report."""
        try:
            clock = {**record.clock, **(self.monitor.clock.seconds() if self.monitor.is_counted else {})}
            self.observers.study_finished(dataclasses.replace(record, clock=clock))
        finally:
            self.monitor.enter(REPORT)  # stores its seconds

    def _controller_arguments(self) -> dict[str, Any]:
        """Returns sampler, pruner and recommended settings of the controller; teachers add an injection."""
        from nbt.tuning.controller import BASELINE_ORIGIN_PREFIX
        from nbt.tuning.engines.cpu_threads import single_threaded
        from nbt.tuning.relative_cost import cost_model
        from nbt.tuning.samplers.without_transfer import starts_without_transfer, tries_from_scratch

        record = self.store.record()
        with single_threaded():
            arguments = self.strategy.arguments(self.prepared.space, cost_model(record))
        if self.strategy.surrogate is not None:
            began = [trial.origin for trial in record.trials]
            # A study that has gone on without training from scratch is continued as it began.
            from_scratch_early = len(began) < 2 or BASELINE_ORIGIN_PREFIX + FROM_SCRATCH in began
            without_transfer = from_scratch_early and starts_without_transfer(self.strategy.surrogate)
            arguments["baselines"] = self._baselines(
                from_scratch=from_scratch_early and tries_from_scratch(self.strategy.surrogate),
                only_default=without_transfer,
            )
            if without_transfer:
                arguments["recommended"] = []  # they transfer
        injections = _initial_injections(
            parse_teacher_names(self.prepared.config.teacher),
            record.dataset.get(TLI_SIMILARITIES, {}),
            self.prepared.config.epochs,
        )
        if injections:
            arguments["recommended"] = [*injections, *arguments.get("recommended", [])]
        return arguments

    def _baselines(self, *, from_scratch: bool, only_default: bool) -> list[tuple[str, TransferSettings]]:
        """Returns the baseline recipes.

        Args:
            from_scratch: Whether training from scratch is the second one.
            only_default: Whether of the others only the default recipe runs.
        """
        epochs = self.prepared.config.epochs
        # Of several backbones, only the default recipe runs in any case; the others where they may gain enough.
        only_default = only_default or self.prepared.candidates is not None
        baselines = baseline_recipes(epochs)[: 1 if only_default else None]
        if from_scratch:
            baselines.insert(1, (FROM_SCRATCH, from_scratch_recipe(epochs)))
        return baselines

    def _stream_controller_arguments(self) -> dict[str, Any]:
        """Returns sampler, pruner and baseline recipes of the controller for a search over streams of tasks."""
        from nbt.tuning.samplers.distinct import DistinctSampler, stream_baseline_recipes

        config, space = self.store.config, self.prepared.space
        return {
            "pruner": self.strategy.pruner,
            "baselines": stream_baseline_recipes(config.epochs, str(config.scenario)),
            "sampler": lambda seed: DistinctSampler(space, length=config.epochs, seed=seed),
        }

    def _run_phases(self, export: Path) -> None:
        from nbt.tuning.controller import SearchController
        from nbt.tuning.engines.cpu_threads import single_threaded
        from nbt.tuning.engines.locked_directory import remove_abandoned_directories
        from nbt.tuning.finals.finals import Finals
        from nbt.tuning.finals.retraining import Retraining
        from nbt.tuning.storage.studies import study_folder

        checkpoints = study_folder(self.store.config.name) / "checkpoints"
        for folder in (checkpoints, export.parent, *cache_root().glob("*/")):
            remove_leftovers(folder)
        remove_abandoned_directories()
        config, monitor = self.store.config, self.monitor
        observers = (monitor, self.observers)
        monitor.enter(TRIALS)
        controller = SearchController(
            self.store,
            self.prepared.space,
            budget=self.prepared.budget,
            checkpoints=checkpoints,
            observers=observers,
            job=monitor.clock,
            closing_seconds=None if monitor.estimator is None else monitor.estimator.closing_seconds,
            **(self._controller_arguments() if config.scenario is None else self._stream_controller_arguments()),
        )
        try:
            self.engine.run(controller)
        finally:
            controller.close()
            self._store_prior_diagnostics()
        if not any(trial.state == "complete" and not trial.diverged for trial in self.store.record().trials):
            raise NbtError(
                f"study {self.store.config.name}: no trial reached its last epoch with a finite loss within the budget "
                f"of {self.prepared.budget.text}; give a larger --budget or fewer --epochs"
            )
        monitor.enter(FINALS)
        with single_threaded():
            finals = Finals(
                self.store,
                seeds=self.prepared.options.final_seeds,
                max_cost=self._affordable_cost(),
                surrogate=None if config.scenario else self.strategy.surrogate,
                checkpoints=checkpoints,
                observers=observers,
            )
        self.engine.run(finals)
        monitor.enter(TRAIN)
        # The result of a search over streams is a recipe; there is no single model to predict with.
        retraining = Retraining(self.store, export=None if config.scenario else export, checkpoints=checkpoints)
        if retraining.pending:
            monitor.training_starts()
        self.engine.run(ProgressTrialSource(retraining, self.prepared.progress))
        if config.scenario is None:
            _complete_model_folder(export, self.store.record())

    def _affordable_cost(self) -> float:
        """Returns what finals and last training may cost at most: the rest of a budget in time."""
        estimator = self.monitor.estimator
        if self.prepared.budget.seconds is None or estimator is None:
            return math.inf
        return estimator.affordable_cost(self.monitor.clock.total)

    def _store_prior_diagnostics(self) -> None:
        """Stores the diagnostics of the priors, see `nbt.tuning.prior_diagnostics.diagnose_priors`."""
        from nbt.tuning.engines.cpu_threads import single_threaded
        from nbt.tuning.prior_diagnostics import diagnose_priors

        stored = self.store.record().prior_diagnostics
        if self.strategy.surrogate is None or (stored and not self.monitor.is_counted):
            return  # a session without trials may have other tables than those that the trials were proposed with
        try:
            with single_threaded():
                self.store.put_prior_diagnostics(diagnose_priors(self.strategy.surrogate, self.store.record().trials))
        except Exception as error:  # only the report needs them; they must neither end the search nor hide its error
            _log.warning("the diagnostics of the priors could not be stored: %s", error)


def _initial_injections(
    teachers: Sequence[str], similarities: Mapping[str, float], epochs: int
) -> list[tuple[str, TransferSettings]]:
    """Returns the injections that run before the sampler's proposals, with their names, the most similar teacher first.

    Every teacher has one: the prior that prefers the most similar one would keep the sampler from another teacher until
    a trial has used it.

    Args:
        teachers: Names of the teachers.
        similarities: TLI similarity of the backbone to each of several teachers.
        epochs: Epochs of a trial.
    """
    short = short_teacher_names(teachers)
    return [
        (
            "injection" if len(teachers) == 1 else f"injection of {short[name]}",
            repair(TransferSettings(init="inject", teacher=name, epochs=epochs)),
        )
        for name in sorted(teachers, key=lambda name: -similarities.get(name, 0.0))
    ]


def _complete_model_folder(folder: Path, record: StudyRecord) -> None:
    """Adds temperature, test results and model card to the folder of the recommended model.

    A model whose training diverged was not exported; the folder may then hold an earlier one.
    """
    from nbt.inference.model_card import complete_model_folder
    from nbt.report.study.calibration import study_temperature
    from nbt.training.export.model_folder import was_trained_with
    from nbt.tuning.finals.finals import recommended_final
    from nbt.tuning.finals.test_results import class_results, test_results

    if not was_trained_with(folder, recommended_final(record).settings):
        return
    results, predictions = test_results(record), record.test_predictions("recommended")
    complete_model_folder(
        folder,
        temperature=study_temperature(record),
        test=None if results is None else results.recommended,
        predictions=predictions,
        majority=None if results is None else results.majority,
        classes=() if predictions is None else class_results(predictions, record.class_names, record.class_images),
    )
