"""StreamRecord: one stream of tasks as plain data, for reports, MLflow and the file that keeps it; without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nbt.errors import NbtError
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings, method_overrides
from nbt.training.continual.results import ContinualResult
from nbt.tuning.storage.study_names import default_study_name

_MAX_NAME_PREFIX = 60
_HASH_LENGTH = 8
# What may change without changing what a stream gives.
_IGNORED_FIELDS = ("memory_bytes",)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What defines a stream: streams that differ in one of these are different streams.

    Attributes:
        method: Name of what is done against forgetting, a key of `nbt.settings.continual.METHODS`.
        settings: Scenario, number of tasks, recipe.
        seed: Of the order of the classes and of the training.
        dataset: As the user named it.
        backbone: Canonical text, e.g. "mobilenet_v2(width_mult=0.35)".
        weights: "default", "none" or the path of a file.
        image_size: Pixels.
        data_hash: `Task.fingerprint`.
        weights_hash: Fingerprint of w0.
        data_dir: Where the dataset was read from, if the user said so.
        classes: `--classes`, if given.
        shots: `--shots`, if given.
        own_image_size: Whether the image size was chosen by the user.
    """

    method: str
    settings: ContinualSettings
    seed: int
    dataset: str
    backbone: str
    weights: str
    image_size: int
    data_hash: str
    weights_hash: str
    data_dir: str | None = None
    classes: int | None = None
    shots: int | None = None
    own_image_size: bool = False

    @property
    def name(self) -> str:
        """Name of the stream: dataset, backbone, scenario, tasks, method, seed, and a hash of what was chosen else."""
        return stream_name([self], [self.seed])

    @property
    def overrides(self) -> dict[str, Any]:
        """Everything that differs from what the method does without options; empty where nothing does."""
        base = default_pretrain_settings(self.method, self.settings.scenario, self.settings.tasks)
        mine, usual = _identity_fields(self.settings), _identity_fields(base)
        found = {name: value for name, value in mine.items() if value != usual[name]}
        given: dict[str, Any] = {
            "weights": None if self.weights == "default" else self.weights_hash,
            "classes": self.classes,
            "image_size": self.image_size if self.own_image_size else None,
            # Which images a class keeps hangs on the seed that the task was loaded with; the fingerprint knows it.
            "shots": None if self.shots is None else [self.shots, self.data_hash],
        }
        return found | {name: value for name, value in given.items() if value is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """What a stored stream must say to be this one, in JSON types."""
        names = ("method", "seed", "backbone", "image_size", "data_hash", "weights_hash")
        return {"settings": _identity_fields(self.settings), **{name: getattr(self, name) for name in names}}

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types; `from_dict` reads them back."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return values | {"settings": self.settings.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamConfig:
        """Reads what `to_dict` wrote."""
        return cls(**{**values, "settings": ContinualSettings.from_dict(values["settings"])})


@dataclass(frozen=True, kw_only=True)
class StreamRecord:
    """A stream, as far as it was run.

    Attributes:
        config: What defines it.
        result: What it gave.
        images: Evaluation images of each task, (T,).
        class_names: Of all classes, by their labels.
        started: UTC, of its first session.
        curvature_bytes: Memory of the curvatures that it keeps at most, 0 where its method keeps none.
        facts: Of the data, see `nbt.task.load.dataset_summary`; and the device.
    """

    config: StreamConfig
    result: ContinualResult
    images: tuple[int, ...]
    class_names: tuple[str, ...]
    started: datetime
    curvature_bytes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every task was learnt."""
        return len(self.result.scores) == self.config.settings.tasks

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types; `from_dict` reads them back."""
        return {
            "name": self.config.name,
            "config": self.config.to_dict(),
            "result": self.result.to_dict(),
            "images": list(self.images),
            "class_names": list(self.class_names),
            "started": self.started.isoformat(),
            "curvature_bytes": self.curvature_bytes,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamRecord:
        """Reads what `to_dict` wrote.

        Raises:
            NbtError: It is nothing that `to_dict` wrote.
        """
        try:
            return cls(
                config=StreamConfig.from_dict(values["config"]),
                result=ContinualResult.from_dict(values["result"]),
                images=tuple(values["images"]),
                class_names=tuple(values["class_names"]),
                started=datetime.fromisoformat(values["started"]),
                curvature_bytes=values["curvature_bytes"],
                facts=values["facts"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise NbtError(f"not a stream that nbt continual wrote ({type(error).__name__}: {error})") from error


def default_pretrain_settings(method: str, scenario: str, tasks: int) -> ContinualSettings:
    """Returns the settings of a method without any option, repaired."""
    recipe = repair(TransferSettings(**method_overrides(method, scenario)))
    return ContinualSettings(scenario=scenario, tasks=tasks, recipe=recipe)


def stream_name(configs: list[StreamConfig], seeds: list[int]) -> str:
    """Returns the name of one stream, or of several that are compared: that of the folder of their report.

    Args:
        configs: One a method, of one dataset, backbone, scenario and length.
        seeds: Consecutive.
    """
    first = configs[0]
    runs = f"seed{seeds[0]}" if len(seeds) == 1 else f"seeds{seeds[0]}-{seeds[-1]}"
    methods = "-".join(config.method for config in configs)
    head = default_study_name(first.dataset, first.backbone, "")[:_MAX_NAME_PREFIX].rstrip("-._")
    name = f"{head}-{first.settings.scenario}-{first.settings.tasks}-{methods}-{runs}"
    overrides = [config.overrides for config in configs]
    if not any(overrides):
        return name
    digest = hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:_HASH_LENGTH]}"


def _identity_fields(settings: ContinualSettings) -> dict[str, Any]:
    values = settings.identity()
    recipe = values.pop("recipe")
    return {name: value for name, value in {**values, **recipe}.items() if name not in _IGNORED_FIELDS}
