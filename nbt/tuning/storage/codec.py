"""The stored attributes of studies and trials: their names, and conversion to and from JSON types."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from nbt.fit.fit_profile import FitProfile
from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult

# Attributes of a study.
CONFIG = "config"
CREATED = "created"
BUDGET = "budget"
SEARCH = "search"
PRUNER = "pruner"
DATASET = "dataset"
CLASSES = "classes"
NOTES = "notes"
ENDED = "ended"
PROFILE = "profile"
PRIOR_DIAGNOSTICS = "guide"
EXPERIENCE = "experience"
CANDIDATES = "candidates"
SOURCE = "source"
SECONDS = "seconds"
CLOCK = "clock"
FINALS = "finals"
TEST = "test"
TEST_EVALUATIONS = "test_evaluations"
LEASE = "lease"
# Key of the images of a study, see `nbt.data.contents`, beside the keys of its runs.
CONTENTS = "contents"

# Keys of the facts about the dataset, see `nbt.task.summary.dataset_summary` and `nbt.api.search`.
TRAIN_IMAGES = "train_images"
VALIDATION_IMAGES = "validation_images"
EFFECTIVE_VALIDATION_IMAGES = "effective_validation_images"
VALIDATION_FIXED = "validation_fixed"
TEST_IMAGES = "test_images"
COPIED_TEST_IMAGES = "copied_test_images"
CHECKS = "checks"
# Keys of the similarity to the most similar teacher of weight injection, see
# `nbt.transfer.injection.weight_injection`, and, with several teachers, to each of them by name.
TLI_SIMILARITY = "tli_similarity"
TLI_SIMILARITIES = "tli_similarities"

# Attributes of a trial.
SETTINGS = "settings"
ORIGIN = "origin"
RUN = "run"
EPOCH_COST = "epoch_cost"
PROGRESS = "progress"
REASON = "reason"
FACTS = "facts"
SOURCE_ACCURACY = "source_accuracy"
INTERRUPTED = "interrupted"
SAMPLER = "sampler"

_CURVE_FIELDS = ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds", "diverged")


def final_key(settings: TransferSettings, seed: int, fold: int | None = None) -> str:
    """Returns the attribute name of a final run, which is the key of its predictions, too.

    Args:
        settings: Recipe of the run.
        seed: Seed of the run.
        fold: Fold of the run; None for a run of version 0.1, whose split was drawn with its seed.
    """
    return f"final:{settings_hash(settings)}:{seed}" + ("" if fold is None else f":{fold}")


def test_key(settings: TransferSettings) -> str:
    """Returns the key of the predictions of the test images by a model with the given settings."""
    return f"test:{settings_hash(settings)}"


def profile_key(name: str) -> str:
    """Returns the attribute name of the fit profile of a candidate other than the reference."""
    return f"{PROFILE}:{name}"


def settings_hash(settings: TransferSettings) -> str:
    """Returns a hash of the settings, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings.identity(), sort_keys=True).encode()).hexdigest()[:16]


def to_json(value: Any) -> Any:
    """Converts a value to JSON types.

    NumPy arrays, tensors and tuples become lists, paths and other objects strings, and NaN and infinities None.
    """
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence | set | frozenset):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    return str(value.as_posix() if isinstance(value, PurePath) else value)


def intermediate_value(result: EpochResult, metric: str) -> float:
    """Returns the score of an epoch for Optuna: 0 if the trial diverged or was not validated."""
    return float(result.score(metric) or 0.0)


def metric_of(attributes: Mapping[str, Any]) -> str:
    """Returns the name of the metric of a study with the given attributes."""
    config = attributes.get(CONFIG)
    name = config.get("metric") if isinstance(config, Mapping) else None
    return str(name) if name in METRICS else DEFAULT_METRIC


def score_images(dataset: Mapping[str, Any], metric: str) -> int | None:
    """Returns the number of validation images by which the error of a score is estimated; None if it is unknown.

    A mean over classes has the error of a balanced set of `effective_validation_images`.

    Args:
        dataset: Facts about the dataset.
        metric: Name of the metric.
    """
    images = dataset.get(EFFECTIVE_VALIDATION_IMAGES) if METRICS[metric].class_mean else None
    number = images or dataset.get(VALIDATION_IMAGES)
    return int(number) if number else None


def encode_curve(curve: Sequence[EpochResult]) -> dict[str, list[Any]]:
    """Converts a learning curve to columns in JSON types."""
    rows = [to_json(result.to_dict()) for result in curve]
    columns = {name: [row[name] for row in rows] for name in _CURVE_FIELDS}
    return {**columns, "metrics": [row.get("metrics", {}) for row in rows]}


def decode_curve(columns: Mapping[str, Sequence[Any]]) -> tuple[EpochResult, ...]:
    """Converts the columns of `encode_curve` back to a learning curve.

    Raises:
        KeyError, TypeError, ValueError: The columns are damaged.
    """
    names = [*_CURVE_FIELDS, *({"metrics"} & columns.keys())]  # version 0.1 has no metrics
    rows = zip(*(columns[name] for name in names), strict=True)
    return tuple(EpochResult.from_dict(dict(zip(names, row, strict=True))) for row in rows)


def encode_profile(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a fit profile (`FitProfile.to_dict`) to JSON types, with its layers as columns.

    Columns are shorter than rows: some databases limit a value to 64 kB.
    """
    rows = profile["layers"]
    columns = {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}
    return {**to_json(profile), "layers": to_json(columns)}


def decode_profile(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the result of `encode_profile` back to a fit profile (`FitProfile.to_dict`).

    Raises:
        ValueError: The profile is damaged or has another version.
    """
    try:
        columns = dict(values["layers"])
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return FitProfile.from_dict({**values, "layers": rows}).to_dict()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"invalid fit profile: {error}") from error
