"""Retraining of the recommended settings and the default recipe on train + validation, with one test evaluation."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbt.errors import NbtError
from nbt.settings import TransferSettings
from nbt.training.export.model_folder import model_problem
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.finals.finals import recommended_final
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage import codec
from nbt.tuning.storage.study_store import StudyStore

_log = logging.getLogger("nbt")

RECOMMENDED = "recommended"
BASELINE = "baseline"


class Retraining(TrialSource):
    """The trial source of the final training of a study (`nbt.tuning.engines.base.TrialSource`).

    If the default recipe is recommended, a single run serves as both. Each recipe is tested once per finished search:
    if the recommendation is unchanged, nothing runs, except that the recommended model is trained again, without a test
    evaluation, if the exported model is missing, is damaged or has other settings; the log says so.

    Args:
        store: The study, locked by this driver, with finished finals.
        export: Folder for the recommended model; None exports none.
        checkpoints: Folder for the checkpoints of running trials; None disables checkpoints.

    Raises:
        NbtError: The finals are not finished.
    """

    def __init__(self, store: StudyStore, *, export: Path | None = None, checkpoints: Path | None = None) -> None:
        self._store, self._export, self._checkpoints = store, export, checkpoints
        record = store.record()
        recipes = {RECOMMENDED: recommended_final(record).settings, BASELINE: default_recipe(store.config.epochs)}
        self._n_test_images = int(record.dataset.get(codec.TEST_IMAGES, 0))
        self._recipes = {name: codec.settings_hash(settings) for name, settings in recipes.items()}
        stored = store.get(codec.TEST) or {}
        unchanged = stored.get("recipes") == self._recipes
        self._results: dict[str, Any] = dict(stored["results"]) if unchanged else {}
        self._pending = self._specs(recipes)

    @property
    def pending(self) -> int:
        """Number of runs that have not started."""
        return len(self._pending)

    def next_trial(self) -> TrialSpec | None:
        """Returns the next training run, or None if there is none."""
        return self._pending.pop(0) if self._pending else None

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores the test results of a run.

        Raises:
            NbtError: The training failed, or the model to be exported diverged, or the model was not tested.
        """
        name = spec.key.removeprefix("retrain-")
        if outcome.error is not None:
            raise NbtError(f"training the {name} settings on train + validation failed: {outcome.error}")
        if outcome.diverged and spec.export is not None:
            raise NbtError(
                f"training the {name} settings on train + validation diverged in epoch {outcome.curve[-1].epoch} and "
                "gave no model; use nbt train with lower learning rates, or search with another --seed"
            )
        if spec.evaluate_test:
            self._store.put_predictions(codec.test_key(spec.settings), outcome.predictions)
            self._store_result(name, outcome)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Queues a run that the engine returned unfinished; it runs again."""
        self._pending.insert(0, spec)

    def _specs(self, recipes: Mapping[str, TransferSettings]) -> list[TrialSpec]:
        """Returns the runs without test results, and the recommended one if its model is not as it was exported."""
        same_recipe = self._recipes[RECOMMENDED] == self._recipes[BASELINE]
        names: Sequence[str] = (RECOMMENDED,) if same_recipe else (RECOMMENDED, BASELINE)
        specs = [self._spec(name, recipes[name]) for name in names]
        return [spec for spec in specs if spec.evaluate_test or _must_export_again(spec)]

    def _spec(self, name: str, settings: TransferSettings) -> TrialSpec:
        key = f"retrain-{name}"
        return TrialSpec(
            key=key,
            settings=settings,
            seed=self._store.config.seed,
            # A stream does not train on its validation images: its training is the same as in trials and finals.
            train_on_all=self._store.config.scenario is None,
            evaluate_test=name not in self._results,
            checkpoint=None if self._checkpoints is None else self._checkpoints / f"{key}.pt",
            export=self._export if name == RECOMMENDED else None,
            keep_predictions=True,
            measure_source=True,
        )

    def _store_result(self, name: str, outcome: TrialOutcome) -> None:
        """Stores a test result; the last one also increments the number of test evaluations.

        Raises:
            NbtError: The model was not tested.
        """
        if outcome.test_accuracy is None:
            raise NbtError(f"the model of the {name} settings was trained but not tested")
        accuracy = wilson_interval(outcome.test_accuracy, self._n_test_images)
        result = {"accuracy": dataclasses.asdict(accuracy), "loss": outcome.test_loss, "n": self._n_test_images}
        if outcome.source_accuracy is not None:
            result["source_accuracy"] = outcome.source_accuracy
        self._results[name] = result
        if self._recipes[RECOMMENDED] == self._recipes[BASELINE]:
            self._results[BASELINE] = result
        if self._results.keys() == self._recipes.keys():
            self._store.put(codec.TEST_EVALUATIONS, int(self._store.get(codec.TEST_EVALUATIONS, 0)) + 1)
        self._store.put(codec.TEST, {"recipes": self._recipes, "results": self._results})


def _must_export_again(spec: TrialSpec) -> bool:
    """Returns whether the folder of a specification, if it has one, lacks the model of its settings; logs the reason.

    An existing folder may contain an earlier recommendation.
    """
    problem = "" if spec.export is None else model_problem(spec.export, spec.settings)
    if problem:
        _log.warning("the model in %s %s: it is trained again", spec.export, problem)
    return bool(problem)
