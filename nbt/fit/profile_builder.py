"""Computes fit profiles: how well pretrained weights fit a target, measured before any training."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nbt.devices import inference_batch_size, pick_device
from nbt.fit.activations import (
    BATCH_SIZE,
    Activations,
    Matrix,
    collect_activations,
    iter_image_batches,
)
from nbt.fit.advantage import advantage
from nbt.fit.batch_norm_shift import BatchNormShift, BatchNormShiftRecorder
from nbt.fit.cka import linear_cka
from nbt.fit.emd import emd_similarity
from nbt.fit.fit_profile import FORMAT_VERSION, LAYER_COLUMNS, OPTIONAL_MEASURES, FitProfile
from nbt.fit.gbc import COMPONENTS as GBC_COMPONENTS
from nbt.fit.gbc import gbc_from_components
from nbt.fit.gradient import relative_gradient_norms
from nbt.fit.h_score import h_score_from_spectrum
from nbt.fit.knee import knee_depth
from nbt.fit.knn import knn_accuracy, knn_accuracy_unchecked
from nbt.fit.leep import leep, nce, nleep_from_components
from nbt.fit.logme import logme_from_spectrum
from nbt.fit.pca import components_from_spectrum
from nbt.fit.profile_cache import profile_path, read_profile, write_profile
from nbt.fit.ridge import ridge_accuracy_from_spectrum, ridge_head
from nbt.fit.sampling import draw_sample
from nbt.fit.similarity import label_similarity, relative_emd_similarity
from nbt.fit.source_means import class_means, means_of_source_data
from nbt.fit.spectrum import Spectrum, one_hot
from nbt.fit.transrate import transrate_from_spectrum
from nbt.fit.validation import IntArray, check_labels
from nbt.models.batch_norm import estimate_statistics
from nbt.models.weights import PretrainedWeights, build_source_head, hash_weights

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from nbt.models.weights import SourceClassMeans
    from nbt.progress import Progress
    from nbt.task.task import Task

_ALGORITHM_VERSION = 4
"""Version of the computation, to be raised when the same task would give another profile."""

_LEADING_MEASURES = ("ridge_accuracy", "knn_accuracy", "logme")

_BATCH_NORM_IMAGES = 128
"""Number of images (at 224 px and below) for the BatchNorm statistics of the random network."""

_NO_HEAD = "the weights came without a classifier of their source's classes"
_NO_MEANS = "the class means of the source are not known; give its images to nbt fit with --source-data FOLDER"
_NO_SIMILARITY = (
    "neither class means nor a classifier of the source are known; give its images to nbt fit with --source-data FOLDER"
)
_NO_NORM = "the backbone has no BatchNorm layer"
_NO_STATISTICS = "the weights came without running statistics of their source"
_NO_SOURCE = "the weights are random: there is no source"


def profile_fit(
    task: Task,
    *,
    samples: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    source_means: SourceClassMeans | None = None,
    all_measures: bool = False,
    progress: Progress | None = None,
    cache: bool = True,
) -> FitProfile:
    """Measures how well a task's pretrained weights fit its target, overall and per unit.

    It takes one forward pass over a stratified sample of the training images (never of validation or test images), and
    one pass of the same architecture with random weights. Each measure is documented by the function of the same name
    in `nbt.fit`. The cost is less than one epoch of fine-tuning; equal arguments give equal profiles on one machine.

    Args:
        task: Target and weights.
        samples: Maximum number of images; None is 1000, or two per class if that is more.
        seed: Seed of the sample, the random weights and N-LEEP, 0 or more.
        device: Device of the computation; the first GPU, else the CPU, when None.
        source_means: Mean features of the source classes (`nbt.fit.source_class_means`); when None the task's, or those
            of its source images.
        all_measures: Whether to compute `nbt.fit.OPTIONAL_MEASURES`, too, which have shown no skill.
        progress: Called as progress(description, done, total) after every step.
        cache: Whether to read and write the cache.

    Returns:
        The profile. Measures that do not apply are absent from its scalars, NaN in its layers, and explained in
        `left_out`.

    Raises:
        ValueError: `samples` is smaller than the number of classes, or `source_means` has another number of features.
        UsageError: The device is unknown or not available.

    Examples:
        >>> import nbt
        >>> task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
        >>> profile = nbt.profile_fit(task, samples=60)
        >>> profile.layers[["unit", "depth"]].round(2)
              unit  depth
        0 ...
    """
    index = draw_sample(task.labels, task.split.train, samples, seed)
    torch_device = pick_device(None if device is None else str(device))
    means = source_means or task.source_means or means_of_source_data(task, torch_device, seed=seed)
    paths = _cache_paths(_cache_identity(task, index, seed, torch_device, means), all_measures) if cache else []
    profile = next(filter(None, map(read_profile, paths)), None)
    if profile is None:
        profile = _ProfileBuilder(task, index, seed, torch_device, means, all_measures, progress).run()
        if paths:
            write_profile(paths[0], profile)
    elif not all_measures:
        profile = profile.without_optional_measures()
    # A cached profile may hold earlier paths of the same images and weights.
    return profile.with_facts(dataset=task.dataset, weights=task.weights)


def _cache_paths(identity: Mapping[str, Any], all_measures: bool) -> list[Path]:
    """Returns the files that a profile may be read from; it is written to the first.

    A profile with all measures, as those of earlier versions are, contains the one without the optional measures.
    """
    complete = profile_path(identity)
    return [complete] if all_measures else [profile_path({**identity, "optional_measures": False}), complete]


def _cache_identity(
    task: Task, index: IntArray, seed: int, device: torch.device, means: SourceClassMeans | None
) -> dict[str, Any]:
    """Returns the values that a profile depends on, in JSON types."""
    return {
        "version": [FORMAT_VERSION, _ALGORITHM_VERSION],
        "task": task.fingerprint if task.content_hash is None else [task.fingerprint, task.content_hash],
        "sample": _digest(index),
        "train": _digest(task.split.train),
        "seed": seed,
        "device": device.type,
        "backbone": task.backbone.text,
        "weights": task.weights_hash,
        "random": task.weights == "none",
        "normalisation": [task.mean, task.std],
        "source_head": None if task.source_head is None else hash_weights(task.source_head),
        "source_means": None if means is None else [_digest(means.means), _digest(means.counts)],
    }


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


@dataclass
class _ProfileBuilder:
    """Computes one profile."""

    task: Task
    index: IntArray
    seed: int
    device: torch.device
    means: SourceClassMeans | None
    all_measures: bool
    progress: Progress | None
    left_out: dict[str, str] = field(default_factory=dict)
    steps_done: int = 0

    def __post_init__(self) -> None:
        # Labels are renumbered without gaps, because a class may have no training image.
        self.labels = check_labels(self.task.labels[self.index], None)
        self.model = self.task.build_model(device=self.device)
        self.batches = math.ceil(len(self.index) / BATCH_SIZE)
        if self.means is not None and self.means.means.shape[1] != self.model.feature_dim:
            raise ValueError(
                f"source_means: {self.means.means.shape[1]} features, but {self.task.backbone.text} has "
                f"{self.model.feature_dim} at {self.task.image_size} px"
            )

    def run(self) -> FitProfile:
        """Measures everything; the random network runs after the outputs of the pretrained one are released."""
        started = time.perf_counter()
        scalars = self._task_scalars()
        names, units = self.model.unit_names, self.model.n_units
        activations, shifts = self._measure_pretrained()
        rows: list[dict[str, Any]] = [
            {"unit": name, "depth": (i + 1) / units, "cka_next": math.nan} for i, name in enumerate(names)
        ]
        per_unit = zip(rows, shifts, activations.channels, activations.dead_channels, strict=True)
        for row, shift, channels, dead in per_unit:
            row.update(channels=channels, dead_channels=dead / channels)
            row.update(mean_shift=shift.mean, variance_shift=shift.variance)
        scalars["dead_channels"] = sum(activations.dead_channels) / sum(activations.channels)
        scalars.update(self._measure_source(activations))
        spectrum = self._measure_units(activations.units, rows, "")
        del activations
        scalars.update(self._measure_output(spectrum))
        self._measure_gradients(spectrum, rows)
        scalars["h_score_regularized"] = rows[-1]["h_score"]
        scalars.update(_last_unit_values(rows, ("logme", "ridge_accuracy"), ""))
        features = self._measure_random(rows)
        scalars.update(_last_unit_values(rows, ("logme", "ridge_accuracy"), "_random"))
        scalars["advantage"] = advantage(scalars["ridge_accuracy"], scalars["ridge_accuracy_random"])
        scalars["knn_accuracy_random"] = self._measure_or_nan(
            "knn_accuracy_random", lambda: knn_accuracy(features, self.labels)
        )
        layers = _to_frame(rows)
        scalars.update(self._summarise(layers))
        finite = {name: float(value) for name, value in scalars.items() if math.isfinite(value)}
        for name in scalars.keys() - finite.keys():
            self.left_out.setdefault(name, "its value is not finite")
        facts = self._facts(time.perf_counter() - started)
        return FitProfile(_in_order(finite), layers, facts, dict(sorted(self.left_out.items())))

    def _advance(self) -> None:
        """Reports one more step: a batch or a unit of one of the networks, the output, or the gradients."""
        self.steps_done += 1
        if self.progress is not None:
            total = 2 * (self.batches + self.model.n_units) + 2
            self.progress(f"measuring how {self.task.backbone.text} fits", self.steps_done, total)

    def _measure_or_nan(self, name: str, measure: Callable[[], float]) -> float:
        """Returns a measure; NaN if it does not apply to these samples or fails, with the reason in `left_out`."""
        try:
            return float(measure())
        except (ValueError, ArithmeticError) as error:
            self.left_out[name] = str(error)
            return math.nan

    def _task_scalars(self) -> dict[str, float]:
        task, train = self.task, self.task.split.train
        counts = np.unique(task.labels[train], return_counts=True)[1]
        return {
            "classes": len(counts),
            "train_images": len(train),
            "images_per_class": float(counts.mean()),
            "smallest_class": int(counts.min()),
            "imbalance": float(counts.max() / counts.min()),
            "image_size": task.image_size,
            "samples": len(self.index),
            "parameters": sum(parameter.numel() for parameter in self.model.units.parameters()),
            "units": self.model.n_units,
            "feature_dim": self.model.feature_dim,
        }

    def _facts(self, seconds: float) -> dict[str, Any]:
        task = self.task
        return {
            "dataset": task.dataset,
            "backbone": task.backbone.text,
            "weights": task.weights,
            "weights_hash": task.weights_hash,
            "image_size": task.image_size,
            "samples": len(self.index),
            "seed": self.seed,
            "fingerprint": task.fingerprint,
            "device": self.device.type,
            "seconds": round(seconds, 3),
        }

    def _measure_pretrained(self) -> tuple[Activations, list[BatchNormShift]]:
        """Runs the pretrained network once."""
        model, task = self.model, self.task
        estimated = {model.get_submodule(name) for name in task.stale_statistics}
        with BatchNormShiftRecorder(model.units, ignored=estimated) as recorder:
            activations = self._collect(model, self._source_head())
        if task.weights == "none":
            self.left_out.update(mean_shift=_NO_SOURCE, variance_shift=_NO_SOURCE)
            return activations, [BatchNormShift(math.nan, math.nan)] * model.n_units
        shifts = recorder.shifts()
        if estimated and all(math.isnan(shift.mean) for shift in shifts):
            self.left_out.update(mean_shift=_NO_STATISTICS, variance_shift=_NO_STATISTICS)
        return activations, shifts

    def _collect(self, model: Any, head: nn.Module | None = None) -> Activations:
        return collect_activations(model, self.task, self.index, self.device, source_head=head, on_batch=self._advance)

    def _source_head(self) -> nn.Module | None:
        task = self.task
        if task.source_head is None:
            if self.all_measures:
                self.left_out.update(dict.fromkeys(("leep", "nce"), _NO_SOURCE if task.weights == "none" else _NO_HEAD))
            return None
        weights = PretrainedWeights(w0=dict(task.w0), mean=task.mean, std=task.std, source_head=dict(task.source_head))
        return build_source_head(task.backbone, weights).to(self.device)

    def _measure_output(self, spectrum: Spectrum) -> dict[str, float]:
        """Returns the measures that are computed for the features only, from one decomposition and projection."""
        labels = self.labels
        projected = components_from_spectrum(spectrum, GBC_COMPONENTS)
        measures: dict[str, Callable[[], float]] = {
            "knn_accuracy": lambda: knn_accuracy_unchecked(spectrum.features, labels),
            "gbc": lambda: gbc_from_components(projected, labels),
        }
        if self.all_measures:
            # N-LEEP uses the first components of GBC.
            measures["nleep"] = lambda: nleep_from_components(projected, labels, seed=self.seed)
            measures["transrate"] = lambda: transrate_from_spectrum(spectrum, labels)
            measures["h_score"] = lambda: h_score_from_spectrum(spectrum, labels, regularized=False)
        values = {name: self._measure_or_nan(name, measure) for name, measure in measures.items()}
        self._advance()
        return values

    def _measure_source(self, activations: Activations) -> dict[str, float]:
        """Returns the measures that compare source and target classes, where the source is known."""
        labels, means = self.labels, self.means
        measures: dict[str, Callable[[], float]] = {}
        if activations.logits is not None:
            probabilities = torch.from_numpy(activations.logits).double().softmax(dim=1).numpy()
            if self.all_measures:
                measures["leep"] = lambda: leep(probabilities, labels)
                measures["nce"] = lambda: nce(probabilities.argmax(axis=1), labels)
        if means is not None:
            target_means, target_counts = self._target_classes(activations.features)
            measures["emd_similarity"] = lambda: emd_similarity(means.means, means.counts, target_means, target_counts)
            measures["similarity"] = lambda: relative_emd_similarity(
                values["emd_similarity"], means.means, means.counts
            )
        else:
            self.left_out["emd_similarity"] = _NO_SOURCE if self.task.weights == "none" else _NO_MEANS
            if activations.logits is not None:
                measures["similarity"] = lambda: label_similarity(probabilities, labels)
            else:
                self.left_out["similarity"] = _NO_SOURCE if self.task.weights == "none" else _NO_SIMILARITY
        values: dict[str, float] = {}
        for name, measure in measures.items():
            values[name] = self._measure_or_nan(name, measure)
        return values

    def _target_classes(self, features: Matrix) -> tuple[Matrix, IntArray]:
        """Returns the mean features of the target's classes and their numbers of training images."""
        target_means, present = class_means(features, self.task.labels[self.index])
        counts = np.bincount(self.task.labels[self.task.split.train], minlength=int(present.max()) + 1)[present]
        return target_means, counts

    def _measure_units(self, units: list[Matrix], rows: list[dict[str, Any]], suffix: str) -> Spectrum:
        """Adds the measures of each unit to its row; returns the spectrum of the last unit's output, the features.

        The entries of `units` are replaced by empty arrays, so that their memory is released one by one.
        """
        for i, row in enumerate(rows):
            spectrum = Spectrum.of(units[i])
            measures = {name + suffix: partial(_UNIT_MEASURES[name], spectrum, self.labels) for name in _UNIT_MEASURES}
            if not suffix and i + 1 < len(units):
                measures["cka_next"] = partial(linear_cka, units[i], units[i + 1])
            for name, measure in measures.items():
                row[name] = self._measure_or_nan(f"{name} of {row['unit']}", measure)
            units[i] = np.empty((0, 0), dtype=np.float32)
            self._advance()
        return spectrum

    def _measure_gradients(self, spectrum: Spectrum, rows: list[dict[str, Any]]) -> None:
        """Adds the relative gradient norm of each unit to its row, from one batch with the head of the ridge probe."""
        try:
            head = ridge_head(spectrum, self.labels)
        except ValueError as error:
            self.left_out["relative_gradient"] = str(error)
            norms = [math.nan] * len(rows)
        else:
            images = next(iter_image_batches(self.task, self.index[:BATCH_SIZE], self.device))
            arrays = (one_hot(self.labels)[:BATCH_SIZE], *head)
            norms = relative_gradient_norms(
                self.model, images, *(torch.from_numpy(array).float().to(self.device) for array in arrays)
            )
        for row, norm in zip(rows, norms, strict=True):
            row["relative_gradient"] = norm
        self._advance()

    def _measure_random(self, rows: list[dict[str, Any]]) -> Matrix:
        """Adds the measures of each unit with random weights to its row; returns the random features."""
        # seed + 1, because with weights "none" w0 is the initialisation of seed 0.
        model = self.task.build_model(self.seed + 1, self.device)
        # With the initial statistics, 0 and 1, the activations of a deep random network would vanish or explode in
        # evaluation mode, which would bias the comparison towards the pretrained weights.
        count = max(2, inference_batch_size(_BATCH_NORM_IMAGES, self.task.image_size))
        estimate_statistics(model, iter_image_batches(self.task, self.index[:count], self.device, count))
        activations = self._collect(model)
        features = activations.features
        self._measure_units(activations.units, rows, "_random")
        return features

    def _summarise(self, layers: pd.DataFrame) -> dict[str, float]:
        """Returns the scalars that summarise the curves over the units."""
        summary = {
            "mean_gain": float(layers["gain"].mean()),
            "knee_depth": knee_depth(layers["ridge_accuracy"], layers["ridge_accuracy_random"], len(self.index)),
        }
        for name in ("mean_shift", "variance_shift"):
            if layers[name].notna().any():
                summary[name] = float(layers[name].mean())
            else:
                self.left_out.setdefault(name, _NO_NORM)
        return summary


_UNIT_MEASURES: Mapping[str, Callable[[Spectrum, IntArray], float]] = {
    "ridge_accuracy": ridge_accuracy_from_spectrum,
    "logme": logme_from_spectrum,
    "h_score": partial(h_score_from_spectrum, regularized=True),
}


def _in_order(scalars: Mapping[str, float]) -> dict[str, float]:
    """Returns the scalars in the order in which they are shown: the leading measures first, the optional ones last."""
    others = [name for name in scalars if name not in OPTIONAL_MEASURES]
    names = dict.fromkeys((*_LEADING_MEASURES, *others, *OPTIONAL_MEASURES))
    return {name: scalars[name] for name in names if name in scalars}


def _last_unit_values(rows: list[dict[str, Any]], names: tuple[str, ...], suffix: str) -> dict[str, float]:
    """Returns measures of the last unit, whose output is the features."""
    return {name + suffix: rows[-1][name + suffix] for name in names}


def _to_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    layers = pd.DataFrame(rows)
    layers["gain"] = layers["ridge_accuracy"] - layers["ridge_accuracy_random"]
    layers = layers[list(LAYER_COLUMNS)]
    numbers = [name for name in LAYER_COLUMNS if name != "unit"]
    return layers.astype(dict.fromkeys(numbers, float))
