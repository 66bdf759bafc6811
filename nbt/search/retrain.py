"""Retrain: the recommendation and the default recipe on train + validation, and the one test evaluation of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbt.errors import NbtError
from nbt.search import attributes as names
from nbt.search.anchors import default_recipe
from nbt.search.finals import recommended_final
from nbt.search.stats import wilson_interval
from nbt.search.store import StudyStore
from nbt.settings import TransferSettings
from nbt.training.model_folder import is_trained_with
from nbt.training.results import EpochResult, TrialJob, TrialOutcome

RECOMMENDED = "recommended"
BASELINE = "baseline"


class Retrain:
    """The last training of a study as a source of jobs (`nbt.search.engines.base.JobSource`).

    Where the default recipe is recommended, both are one run. Each recipe is tested once for a finished search: a
    second call with the same recommendation runs nothing, or only trains again, without a look at the test images,
    where the exported model is gone or of other settings.

    Args:
        store: The study, held by this driver, with its finals over.
        export: Folder for the recommended model; None exports none.
        checkpoints: Folder for the checkpoints of running trials; None keeps none.
    """

    def __init__(self, store: StudyStore, *, export: Path | None = None, checkpoints: Path | None = None) -> None:
        self._store, self._export, self._checkpoints = store, export, checkpoints
        record = store.record()
        recipes = {RECOMMENDED: recommended_final(record).settings, BASELINE: default_recipe(store.config.epochs)}
        self._images = int(record.dataset.get(names.TEST_IMAGES, 0))
        self._recipes = {name: names.settings_hash(settings) for name, settings in recipes.items()}
        stored = store.get(names.TEST) or {}
        same = stored.get("recipes") == self._recipes
        self._results: dict[str, Any] = dict(stored["results"]) if same else {}
        self._waiting = self._jobs(recipes)
        self._running: dict[str, TrialJob] = {}

    @property
    def over(self) -> bool:
        """Whether nothing is left to run."""
        return not self._waiting and not self._running

    def next_job(self) -> TrialJob | None:
        """Returns the next training."""
        if not self._waiting:
            return None
        job = self._waiting.pop(0)
        self._running[job.key] = job
        return job

    def on_place(self, job: TrialJob, place: Mapping[str, Any]) -> None:
        """Nothing: no result depends on it."""

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Never stops a training."""
        return None

    def on_done(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Stores what the test images say.

        Raises:
            NbtError: The training failed.
        """
        del self._running[job.key]
        name = job.key.removeprefix("retrain-")
        if outcome.error is not None:
            raise NbtError(f"training the {name} settings on train + validation failed: {outcome.error}")
        if job.evaluate_test:
            self._keep(name, outcome)

    def on_abandoned(self, job: TrialJob) -> None:
        """Takes back a training that the engine gave up; it is handed out again."""
        del self._running[job.key]
        self._waiting.insert(0, job)

    def _jobs(self, recipes: Mapping[str, TransferSettings]) -> list[TrialJob]:
        """Returns what is not tested yet, and the recommended one where its model is missing or of other settings."""
        alike = self._recipes[RECOMMENDED] == self._recipes[BASELINE]
        wanted: Sequence[str] = (RECOMMENDED,) if alike else (RECOMMENDED, BASELINE)
        jobs = [self._job(name, recipes[name]) for name in wanted]
        return [job for job in jobs if job.evaluate_test or not _is_exported(job)]

    def _job(self, name: str, settings: TransferSettings) -> TrialJob:
        key = f"retrain-{name}"
        return TrialJob(
            key=key,
            settings=settings,
            seed=self._store.config.seed,
            # The images that a stream is validated on are not added: both are of streams of the same length.
            train_on_all=self._store.config.scenario is None,
            evaluate_test=name not in self._results,
            checkpoint=None if self._checkpoints is None else self._checkpoints / f"{key}.pt",
            export=self._export if name == RECOMMENDED else None,
        )

    def _keep(self, name: str, outcome: TrialOutcome) -> None:
        """Stores a result; the last one makes the search finished, and counts as one look at the test images."""
        if outcome.test_accuracy is None:
            raise NbtError(f"the {name} settings were trained but not tested")
        accuracy = wilson_interval(outcome.test_accuracy, self._images)
        result = {"accuracy": dataclasses.asdict(accuracy), "loss": outcome.test_loss, "n": self._images}
        self._results[name] = result
        if self._recipes[RECOMMENDED] == self._recipes[BASELINE]:
            self._results[BASELINE] = result
        if self._results.keys() == self._recipes.keys():
            self._store.put(names.TEST_EVALUATIONS, int(self._store.get(names.TEST_EVALUATIONS, 0)) + 1)
        self._store.put(names.TEST, {"recipes": self._recipes, "results": self._results})


def _is_exported(job: TrialJob) -> bool:
    """Tells whether the model that a job exports is there; a folder of the same name may be of an earlier choice."""
    return job.export is None or is_trained_with(job.export, job.settings)
