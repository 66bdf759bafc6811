"""Retraining: the recommendation and the default recipe on train + validation, and the one test evaluation of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbt.errors import NbtError
from nbt.settings import TransferSettings
from nbt.training.export.model_folder import was_trained_with
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.finals.finals import recommended_final
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage import codec as codec
from nbt.tuning.storage.study_store import StudyStore

RECOMMENDED = "recommended"
BASELINE = "baseline"


class Retraining:
    """The last training of a study as a source of specs (`nbt.tuning.engines.base.TrialSource`).

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
        self._n_test_images = int(record.dataset.get(codec.TEST_IMAGES, 0))
        self._recipes = {name: codec.settings_hash(settings) for name, settings in recipes.items()}
        stored = store.get(codec.TEST) or {}
        same = stored.get("recipes") == self._recipes
        self._results: dict[str, Any] = dict(stored["results"]) if same else {}
        self._pending = self._specs(recipes)
        self._running: dict[str, TrialSpec] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return not self._pending and not self._running

    def next_trial(self) -> TrialSpec | None:
        """Returns the next training."""
        if not self._pending:
            return None
        spec = self._pending.pop(0)
        self._running[spec.key] = spec
        return spec

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Nothing: no result depends on it."""

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Never stops a training."""
        return None

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores what the test images say.

        Raises:
            NbtError: The training failed.
        """
        del self._running[spec.key]
        name = spec.key.removeprefix("retrain-")
        if outcome.error is not None:
            raise NbtError(f"training the {name} settings on train + validation failed: {outcome.error}")
        if spec.evaluate_test:
            self._store_result(name, outcome)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Takes back a training that the engine gave up; it is handed out again."""
        del self._running[spec.key]
        self._pending.insert(0, spec)

    def _specs(self, recipes: Mapping[str, TransferSettings]) -> list[TrialSpec]:
        """Returns what is not tested yet, and the recommended one where its model is missing or of other settings."""
        same_recipe = self._recipes[RECOMMENDED] == self._recipes[BASELINE]
        wanted: Sequence[str] = (RECOMMENDED,) if same_recipe else (RECOMMENDED, BASELINE)
        specs = [self._spec(name, recipes[name]) for name in wanted]
        return [spec for spec in specs if spec.evaluate_test or not _is_exported(spec)]

    def _spec(self, name: str, settings: TransferSettings) -> TrialSpec:
        key = f"retrain-{name}"
        return TrialSpec(
            key=key,
            settings=settings,
            seed=self._store.config.seed,
            # The images that a stream is validated on are not added: both are of streams of the same length.
            train_on_all=self._store.config.scenario is None,
            evaluate_test=name not in self._results,
            checkpoint=None if self._checkpoints is None else self._checkpoints / f"{key}.pt",
            export=self._export if name == RECOMMENDED else None,
        )

    def _store_result(self, name: str, outcome: TrialOutcome) -> None:
        """Stores a result; the last one makes the search finished, and counts as one look at the test images."""
        if outcome.test_accuracy is None:
            raise NbtError(f"the {name} settings were trained but not tested")
        accuracy = wilson_interval(outcome.test_accuracy, self._n_test_images)
        result = {"accuracy": dataclasses.asdict(accuracy), "loss": outcome.test_loss, "n": self._n_test_images}
        self._results[name] = result
        if self._recipes[RECOMMENDED] == self._recipes[BASELINE]:
            self._results[BASELINE] = result
        if self._results.keys() == self._recipes.keys():
            self._store.put(codec.TEST_EVALUATIONS, int(self._store.get(codec.TEST_EVALUATIONS, 0)) + 1)
        self._store.put(codec.TEST, {"recipes": self._recipes, "results": self._results})


def _is_exported(spec: TrialSpec) -> bool:
    """Tells whether the model that a spec exports is there; a folder of the same name may be of an earlier choice."""
    return spec.export is None or was_trained_with(spec.export, spec.settings)
