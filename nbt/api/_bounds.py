"""The greatest size and latency of the backbones of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbt.errors import UsageError
from nbt.models.backbone_spec import BackboneSpec
from nbt.search_config import SearchConfig

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.storage.records import StudyRecord


class BoundError(UsageError):
    """A backbone exceeds a bound of the search.

    Attributes:
        reason: The message without the name of the backbone.
    """

    def __init__(self, backbone: str, reason: str) -> None:
        super().__init__(f"{backbone} {reason}")
        self.reason = f"it {reason}"


def check_parameters(backbone: BackboneSpec, image_size: int | None, config: SearchConfig) -> None:
    """Checks the size of a backbone, without its weights.

    Raises:
        UsageError: It has more parameters than `max_parameters`.
    """
    from nbt.models.backbone import build_backbone, default_image_size
    from nbt.models.size import parameter_count

    if config.max_parameters is None:
        return
    size = image_size or default_image_size(backbone)
    parameters = parameter_count(build_backbone(backbone, 2, image_size=size))
    if parameters > config.max_parameters:
        raise BoundError(
            backbone.text, f"has {parameters:,} parameters, more than the {config.max_parameters:,} of --max-parameters"
        )


def check_latency(task: Task, config: SearchConfig, stored: StudyRecord | None = None) -> None:
    """Checks the latency of the backbone of a task on this device.

    Args:
        task: The task.
        config: The configuration of the search.
        stored: The stored study, which met its bounds: a latency that is measured again may differ.

    Raises:
        UsageError: It takes longer than `max_latency` for an image.
    """
    if config.max_latency is None or (stored is not None and bounds_of(stored.search_config()) == bounds_of(config)):
        return
    latency_within(task, config.max_latency)


def latency_within(task: Task, max_latency: float | None) -> float:
    """Returns the time in milliseconds in which the backbone of a task classifies one image on this device.

    Args:
        task: The task.
        max_latency: The greatest allowed time in milliseconds; None without a limit.

    Raises:
        UsageError: It takes longer.
    """
    from nbt.models.size import measure_latency

    latency, size = measure_latency(task.build_model(), task.image_size), task.image_size
    if max_latency is not None and latency > max_latency:
        raise BoundError(
            task.backbone.text,
            f"takes {latency:.3g} ms for an image of {size} px on this device, longer than the {max_latency:g} ms "
            "of --max-latency",
        )
    return latency


def bounds_of(config: SearchConfig) -> tuple[int | None, float | None]:
    """Returns the greatest number of parameters and the greatest latency that a search allows."""
    return config.max_parameters, config.max_latency
