"""The configuration and record of a stream of tasks as plain data, without PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nbt.errors import NbtError
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings, method_overrides
from nbt.training.continual.results import ContinualResult, TaskScore
from nbt.tuning.storage.records import TaskConfig
from nbt.tuning.storage.study_names import default_study_name

if TYPE_CHECKING:
    from nbt.training.continual.curvature_memory import CurvatureMemory

_MAX_NAME_PREFIX = 60
_HASH_LENGTH = 8
# Settings that do not affect the results of a stream.
_IGNORED_FIELDS = ("memory_bytes",)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(TaskConfig):
    """The configuration of a stream of tasks.

    Attributes:
        method: Method against forgetting, a key of `nbt.settings.continual.METHODS`.
        settings: Scenario, number of tasks and recipe.
        own_image_size: Whether the image size was chosen by the user.
    """

    method: str
    settings: ContinualSettings
    own_image_size: bool = False

    @property
    def name(self) -> str:
        """Name of the stream: dataset, backbone, scenario, tasks, method, seed, and a hash of `overrides` if any."""
        return stream_name([self], [self.seed])

    @property
    def overrides(self) -> dict[str, Any]:
        """Everything that differs from the method's defaults; empty if nothing does."""
        default_settings = default_continual_settings(self.method, self.settings.scenario, self.settings.tasks)
        fields, defaults = _identity_fields(self.settings), _identity_fields(default_settings)
        changed = {name: value for name, value in fields.items() if value != defaults[name]}
        options: dict[str, Any] = {
            "weights": None if self.weights == "default" else self.weights_hash,
            "classes": self.classes,
            "image_size": self.image_size if self.own_image_size else None,
            # The images kept per class depend on the seed with which the task was loaded; the fingerprint includes it.
            "shots": None if self.shots is None else [self.shots, self.data_hash],
        }
        return changed | {name: value for name, value in options.items() if value is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """The values in which a stored stream must agree to be the same stream, in JSON types."""
        names = ("method", "seed", "backbone", "image_size", "data_hash", "weights_hash")
        return {"settings": _identity_fields(self.settings), **{name: getattr(self, name) for name in names}}

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON types; `from_dict` reads them."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return values | {"settings": self.settings.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamConfig:
        """Creates a configuration from the result of `to_dict`."""
        return cls(**{**values, "settings": ContinualSettings.from_dict(values["settings"])})


@dataclass(frozen=True, kw_only=True)
class StreamRecord:
    """A finished or unfinished stream of tasks.

    Attributes:
        config: Configuration of the stream.
        result: Result of the tasks learned so far.
        images: Number of evaluation images of each task, (T,).
        class_names: Names of all classes, in the order of their labels.
        started: Start of the first session in UTC.
        curvature_bytes: Maximum memory of the stored curvatures in bytes; 0 if the method stores none.
        facts: Facts about the dataset, see `nbt.task.summary.dataset_summary`, and the device.
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
        """Whether all tasks were learned."""
        return len(self.result.scores) == self.config.settings.tasks

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON types; `from_dict` reads them."""
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
        """Creates a record from the result of `to_dict`.

        Raises:
            NbtError: The values are damaged or are not a record of a stream.
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


def default_continual_settings(method: str, scenario: str, tasks: int) -> ContinualSettings:
    """Returns the default settings of a method, repaired."""
    recipe = repair(TransferSettings(**method_overrides(method, scenario)))
    return ContinualSettings(scenario=scenario, tasks=tasks, recipe=recipe)


def stream_name(configs: list[StreamConfig], seeds: list[int]) -> str:
    """Returns the name of a stream, or of several compared streams; it is also the name of their report folder.

    Args:
        configs: One configuration per method, all with the same dataset, backbone, scenario and number of tasks.
        seeds: Consecutive seeds.
    """
    first = configs[0]
    runs = f"seed{seeds[0]}" if len(seeds) == 1 else f"seeds{seeds[0]}-{seeds[-1]}"
    methods = "-".join(config.method for config in configs)
    prefix = default_study_name(first.dataset, first.backbone, "")[:_MAX_NAME_PREFIX].rstrip("-._")
    name = f"{prefix}-{first.settings.scenario}-{first.settings.tasks}-{methods}-{runs}"
    overrides = [config.overrides for config in configs]
    if not any(overrides):
        return name
    digest = hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:_HASH_LENGTH]}"


def _identity_fields(settings: ContinualSettings) -> dict[str, Any]:
    values = settings.identity()
    recipe = values.pop("recipe")
    return {name: value for name, value in {**values, **recipe}.items() if name not in _IGNORED_FIELDS}


class StreamObserver:
    """Base class of observers of task streams; every method does nothing unless it is overridden."""

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, CurvatureMemory]) -> None:
        """Called once, before the first stream runs.

        Args:
            configs: All streams, in the order in which they run.
            memory: Method -> memory of its curvatures, for the methods that keep curvatures and have streams to run.
        """

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        """Called when a stream starts or is resumed.

        Args:
            config: The stream.
            scores: Results of the tasks that were learnt in earlier sessions.
        """

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        """Called when a task of a stream has been learnt and tested."""

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        """Called once per stream when it is finished.

        Args:
            record: The whole stream.
            kept: Whether the stream was already finished in an earlier session.
        """

    def stream_progress(self, config: StreamConfig, label: str, done: int, total: int) -> None:
        """Called with the progress inside a stream; several streams may run at a time.

        Args:
            config: The stream.
            label: As in `update`.
            done: As in `update`.
            total: As in `update`.
        """
        self.update(label, done, total)

    def update(self, label: str, done: int, total: int) -> None:
        """Called with the progress inside a stream.

        Args:
            label: The current task, such as "task 2 of 5".
            done: Epochs of the stream so far.
            total: Epochs of all its tasks.
        """
