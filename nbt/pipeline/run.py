"""Run: an open study, taken through search, finals, last training and report."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import NbtError
from nbt.pipeline.plan import Plan
from nbt.pipeline.results import SearchResult
from nbt.pipeline.steering import Steering
from nbt.pipeline.watched import Watched
from nbt.search.records import StudyObserver, StudyRecord
from nbt.settings import TransferSettings, repair

if TYPE_CHECKING:
    from nbt.search.engines.base import Engine
    from nbt.search.store import StudyStore

_log = logging.getLogger("nbt")


@dataclass(frozen=True, eq=False)
class Run:
    """An open study with everything that works on it."""

    plan: Plan
    store: StudyStore
    engine: Engine
    steering: Steering
    observers: StudyObserver

    def to_end(self) -> SearchResult:
        """Runs all phases. Whatever ends it early, the report and MLflow get what there is."""
        try:
            self._phases((self.plan.out / self.store.config.name / "model").resolve())
        except BaseException:
            self._leave()
            raise
        record = self.store.record()
        return SearchResult(record, self._report(record), self.plan.elsewhere)

    def _leave(self) -> None:
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
            return write_report(record, self.plan.out, elsewhere=self.plan.elsewhere).resolve()
        finally:
            self.observers.study_finished(record)

    def _arguments(self) -> dict[str, Any]:
        """Returns what the brain needs to know of proposals and pruning, an injection that a user would run first."""
        found = self.steering.arguments(self.plan.space)
        teacher, epochs = self.plan.config.teacher, self.plan.config.epochs
        if teacher is not None:
            settings = repair(TransferSettings(init="inject", teacher=teacher, epochs=epochs))
            found["recommended"] = [("injection", settings), *found.get("recommended", [])]
        return found

    def _stream_arguments(self) -> dict[str, Any]:
        """Returns what the brain needs to know of a search over streams of tasks."""
        from nbt.search.stream import DistinctSampler, stream_anchors

        config, space = self.store.config, self.plan.space
        return {
            "pruner": self.steering.pruner,
            "first": stream_anchors(config.epochs, str(config.scenario)),
            "sampler": lambda seed: DistinctSampler(space, length=config.epochs, seed=seed),
        }

    def _phases(self, export: Path) -> None:
        from nbt.search.brain import Brain
        from nbt.search.finals import Finals
        from nbt.search.retrain import Retrain
        from nbt.search.storage import study_folder

        checkpoints = study_folder(self.store.config.name) / "checkpoints"
        config = self.store.config
        brain = Brain(
            self.store,
            self.plan.space,
            budget=self.plan.budget,
            checkpoints=checkpoints,
            observers=[self.observers],
            **(self._arguments() if config.scenario is None else self._stream_arguments()),
        )
        try:
            self.engine.run(brain)
        finally:
            brain.close()
            self._review()
        if not any(trial.state == "complete" and not trial.diverged for trial in self.store.record().trials):
            raise NbtError(
                f"study {self.store.config.name}: no trial ran to its end with a finite loss within the budget of "
                f"{self.plan.budget.text}; give it more, or fewer --epochs"
            )
        self.engine.run(
            Finals(self.store, seeds=self.plan.final_seeds, checkpoints=checkpoints, observers=[self.observers])
        )
        # What a stream leaves behind is no model to predict with, but a way to learn.
        last = Retrain(self.store, export=None if config.scenario else export, checkpoints=checkpoints)
        self.engine.run(Watched(last, self.plan.progress))

    def _review(self) -> None:
        """Stores what guided the search and what its trials made of it."""
        from nbt.search.review import review

        if self.steering.guide is None:
            return
        try:
            self.store.put_guide(review(self.steering.guide, self.store.record().trials))
        except (
            Exception
        ) as error:  # it is for the report alone, and must neither cost the search nor hide what ended it
            _log.warning("what guided the search could not be written down: %s", error)
