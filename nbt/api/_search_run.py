"""SearchRun: an open study, taken through search, finals, last training and report."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._prepared_search import PreparedSearch
from nbt.api._progress_source import ProgressTrialSource
from nbt.api._strategy import SearchStrategy
from nbt.api.results import SearchResult
from nbt.errors import NbtError
from nbt.settings import TransferSettings, repair
from nbt.tuning.storage.records import StudyObserver, StudyRecord

if TYPE_CHECKING:
    from nbt.tuning.engines.base import Engine
    from nbt.tuning.storage.study_store import StudyStore

_log = logging.getLogger("nbt")


@dataclass(frozen=True, eq=False)
class SearchRun:
    """An open study with everything that works on it."""

    prepared: PreparedSearch
    store: StudyStore
    engine: Engine
    strategy: SearchStrategy
    observers: StudyObserver

    def run_all_phases(self) -> SearchResult:
        """Runs all phases. Whatever ends it early, the report and MLflow get what there is."""
        try:
            self._run_phases((self.prepared.out / self.store.config.name / "model").resolve())
        except BaseException:
            self._report_interrupted()
            raise
        record = self.store.record()
        return SearchResult(record, self._report(record), self.prepared.run_options)

    def _report_interrupted(self) -> None:
        """Reports on what was ended early. What ended it is the news: nothing that is gone as well may hide it."""
        with suppress(NbtError):
            record = self.store.record()
            if not record.trials:
                return
            try:
                self._report(record)
            except NbtError as error:
                _log.warning("%s", error)

    def _report(self, record: StudyRecord) -> Path:
        """Writes the report, then tells the observers of the end, which does not depend on the report."""
        from nbt.report import write_report

        try:
            return write_report(record, self.prepared.out, run_options=self.prepared.run_options).resolve()
        finally:
            self.observers.study_finished(record)

    def _controller_arguments(self) -> dict[str, Any]:
        """Returns what the controller needs to know of proposals and pruning, an injection that a user would run first."""
        found = self.strategy.arguments(self.prepared.space)
        teacher, epochs = self.prepared.config.teacher, self.prepared.config.epochs
        if teacher is not None:
            settings = repair(TransferSettings(init="inject", teacher=teacher, epochs=epochs))
            found["recommended"] = [("injection", settings), *found.get("recommended", [])]
        return found

    def _stream_controller_arguments(self) -> dict[str, Any]:
        """Returns what the controller needs to know of a search over streams of tasks."""
        from nbt.tuning.samplers.distinct import DistinctSampler, stream_baseline_recipes

        config, space = self.store.config, self.prepared.space
        return {
            "pruner": self.strategy.pruner,
            "first": stream_baseline_recipes(config.epochs, str(config.scenario)),
            "sampler": lambda seed: DistinctSampler(space, length=config.epochs, seed=seed),
        }

    def _run_phases(self, export: Path) -> None:
        from nbt.tuning.controller import SearchController
        from nbt.tuning.finals.finals import Finals
        from nbt.tuning.finals.retraining import Retraining
        from nbt.tuning.storage.studies import study_folder

        checkpoints = study_folder(self.store.config.name) / "checkpoints"
        config = self.store.config
        controller = SearchController(
            self.store,
            self.prepared.space,
            budget=self.prepared.budget,
            checkpoints=checkpoints,
            observers=[self.observers],
            **(self._controller_arguments() if config.scenario is None else self._stream_controller_arguments()),
        )
        try:
            self.engine.run(controller)
        finally:
            controller.close()
            self._store_prior_diagnostics()
        if not any(trial.state == "complete" and not trial.diverged for trial in self.store.record().trials):
            raise NbtError(
                f"study {self.store.config.name}: no trial ran to its end with a finite loss within the budget of "
                f"{self.prepared.budget.text}; give it more, or fewer --epochs"
            )
        self.engine.run(
            Finals(self.store, seeds=self.prepared.final_seeds, checkpoints=checkpoints, observers=[self.observers])
        )
        # What a stream leaves behind is no model to predict with, but a way to learn.
        last = Retraining(self.store, export=None if config.scenario else export, checkpoints=checkpoints)
        self.engine.run(ProgressTrialSource(last, self.prepared.progress))

    def _store_prior_diagnostics(self) -> None:
        """Stores what guided the search and what its trials made of it."""
        from nbt.tuning.prior_diagnostics import diagnose_priors

        if self.strategy.surrogate is None:
            return
        try:
            self.store.put_prior_diagnostics(diagnose_priors(self.strategy.surrogate, self.store.record().trials))
        except (
            Exception
        ) as error:  # it is for the report alone, and must neither cost the search nor hide what ended it
            _log.warning("what guided the search could not be written down: %s", error)
