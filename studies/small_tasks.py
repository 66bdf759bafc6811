"""The data sets of `tasks.yaml` with one backbone, by default a small one, and trainings of recipes on them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nbt
from nbt.settings import TransferSettings, repair
from nbt.task.summary import dataset_summary
from nbt.task.task import Task
from nbt.training.evaluation import evaluate_model
from nbt.training.fine_tune import FineTuneResult, fine_tune
from nbt.training.worker.context import WorkerContext
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.samplers.recommendation import recommend_settings
from nbt.tuning.space.applicability import unconditional_space
from nbt.tuning.space.space import Space
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors

BACKBONE, WEIGHTS = "mobilenet_v2(width_mult=0.35)", "weights/mobilenet_v2_035-imagenet.pth"
IMAGE_SIZE, EPOCHS = 64, 12
MAX_TEST_IMAGES = 750
STUDY = "study"
CURVE = ("train_loss", "val_loss", "val_accuracy", "seconds", "cpu_seconds")
"""Fields of `nbt.training.results.EpochResult` in the curve of a row, in this order."""


class Tasks:
    """The tasks, each loaded when it is first used.

    Args:
        shared: Folder with data/ and weights/.
        backbone: Name of the backbone.
        weights: File of its weights, or "none"; when None those of the small backbone in `shared`.
    """

    def __init__(self, shared: Path, backbone: str = BACKBONE, weights: Path | str | None = None) -> None:
        self._shared, self._contexts = shared, dict[tuple[str, int], WorkerContext]()
        self._backbone, self._weights = backbone, shared / WEIGHTS if weights is None else weights

    def train(self, name: str, settings: TransferSettings, seed: int, split_seed: int = 0) -> dict[str, Any]:
        """Trains a recipe and returns its accuracies on validation and test images and its CPU time in seconds."""
        context = self._context(name, split_seed)
        task, started = context.task, time.process_time()
        result = _fine_tuned(context, settings, seed)
        seconds, last = time.process_time() - started, result.curve[-1]
        test = task.split.test
        if len(test) > MAX_TEST_IMAGES:
            test = np.sort(np.random.default_rng(0).choice(test, MAX_TEST_IMAGES, replace=False))
        accuracy = 0.0 if last.diverged else evaluate_model(context, result.model, test).accuracy
        return {
            "val": 0.0 if last.diverged else last.val_accuracy,
            "test": accuracy,
            "n_val": len(task.split.val),
            "n_test": len(test),
            "cpu_seconds": round(seconds, 2),
            "curve": [[_rounded(getattr(epoch, name)) for name in CURVE] for epoch in result.curve],
        }

    def trained_state(self, name: str, settings: TransferSettings, seed: int) -> dict[str, torch.Tensor]:
        """Trains a recipe and returns the weights of units and head, which can be saved as weights of a task."""
        state = _fine_tuned(self._context(name, 0), settings, seed).model.state_dict()
        return {key: tensor.clone() for key, tensor in state.items() if key.startswith(("units.", "head."))}

    def task(self, name: str, split_seed: int = 0) -> Task:
        """Returns a task."""
        return self._context(name, split_seed).task

    def recommended(self, name: str, split_seed: int) -> TransferSettings:
        """Returns the settings that profile and shipped tables suggest, which a search runs after the tuned default."""
        task, space = self.task(name, split_seed), Space.load("non_binary").with_fixed_epochs()
        target = Target.of(dataset_summary(task), nbt.profile_fit(task).to_dict(), EPOCHS)
        searched = unconditional_space(space)
        surrogate = TransferredPriors(load_experience(None, space)).surrogate(target, searched)
        return recommend_settings(surrogate, searched)

    def _context(self, name: str, split_seed: int) -> WorkerContext:
        key = name, split_seed
        if key not in self._contexts:
            dataset = name if name == "digits" else self._shared / "data" / name
            options: dict[str, Any] = {
                "backbone": self._backbone,
                "weights": self._weights,
                "image_size": IMAGE_SIZE,
            }
            self._contexts[key] = WorkerContext(nbt.load_task(dataset, seed=split_seed, progress=False, **options))
        return self._contexts[key]


def _fine_tuned(context: WorkerContext, settings: TransferSettings, seed: int) -> FineTuneResult:
    """Returns the result of a complete training."""
    training = fine_tune(context.task, settings, seed, context=context)
    try:
        while True:
            next(training)
    except StopIteration as end:
        result: FineTuneResult = end.value
        return result


def _rounded(value: float | None) -> float | None:
    """Returns a number of a curve with five decimals, which is finer than its noise."""
    return None if value is None else round(value, 5)


def recipe(changes: Mapping[str, Any]) -> TransferSettings:
    """Returns the settings that differ from the default recipe by `changes`."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return repair(default_recipe(EPOCHS).replace(**values))


def changed(settings: TransferSettings) -> dict[str, Any]:
    """Returns the settings that differ from the default recipe, in JSON types."""
    default = default_recipe(EPOCHS).to_dict()
    return {name: value for name, value in repair(settings).to_dict().items() if value != default[name]}


def search_options(shared: Path, dataset: str, seed: int, budget: str, folder: Path) -> dict[str, object]:
    """Returns options of `nbt search` for the small backbone, with a study of the name `STUDY`.

    Args:
        shared: Absolute path of the folder with data/ and weights/.
        dataset: Name of the data set.
        seed: Seed of the search.
        budget: Its budget.
        folder: Working folder of the search, which gets reports/.
    """
    return {
        "dataset": shared / "data" / dataset,
        "backbone": BACKBONE,
        "weights": shared / WEIGHTS,
        "image-size": IMAGE_SIZE,
        "seed": seed,
        "budget": budget,
        "study": STUDY,
        "out": folder / "reports",
    }
