"""The options of a task, and their checks before anything heavy is imported or opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nbt.data.resolve import DatasetSource, resolve
from nbt.errors import UsageError, errors_in
from nbt.models.backbone_spec import BackboneSpec, MissingTimmError, parse_backbone
from nbt.models.teacher import parse_teachers
from nbt.option import check_image_size, check_number, check_shots
from nbt.paths import absolute_path
from nbt.search_config import flag_of, option_fields
from nbt.settings.candidate import Candidate, parse_candidates

_log = logging.getLogger("nbt")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of a task, checked without opening an image or importing PyTorch.

    Attributes:
        source: The dataset and its location.
        backbone: The architecture.
        weights: "default", "none", or the absolute path of a file.
        data_dir: Absolute path of the user's option `data_dir`, or None.
        image_size: Height and width in pixels, or None for the default of dataset and backbone.
        classes: Number of classes, or None for all.
        shots: Labelled images per class, or None for all.
        seed: Seed of the split and of the shots.
        resize: How images become square, one of `nbt.search_config.RESIZE_MODES`.
        source_data: Images of the source task, or None.
    """

    source: DatasetSource
    backbone: BackboneSpec
    weights: str
    data_dir: str | None
    image_size: int | None
    classes: int | None
    shots: int | None
    seed: int
    resize: str = "crop"
    source_data: DatasetSource | None = None


def check_task_options(
    dataset: str | Path,
    *,
    backbone: str | BackboneSpec | None = None,
    weights: str | Path = "default",
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    shots: int | None = None,
    teacher: str | Sequence[str] | None = None,
    resize: str = "crop",
    source_data: str | Path | None = None,
    seed: int = 0,
) -> TaskOptions:
    """Checks the arguments of `load_task` without importing PyTorch or NumPy.

    Raises:
        UsageError: An argument is wrong; the message names it and the remedy.
    """
    named = None if isinstance(backbone, BackboneSpec) else backbone
    texts = {"data_dir": data_dir, "backbone": named, "weights": weights, "source_data": source_data}
    for name, value in texts.items():
        if value is not None:
            option_fields()[name].check(flag_of(name), value)
    source = resolve(dataset, data_dir)
    n_classes = source.spec.classes
    check_image_size("--image-size", image_size)
    check_number("--classes", classes, 2, n_classes, f"{source.spec.name} has {n_classes} classes" if n_classes else "")
    check_shots("--shots", shots)
    check_number("--seed", seed, 0, 2**63 - 1)
    option_fields()["resize"].check("--resize", resize)
    parse_teachers(teacher)
    spec = source.spec.default_backbone if backbone is None else backbone
    return TaskOptions(
        source=source,
        backbone=parse_backbone(spec) if isinstance(spec, str) else spec,
        weights=check_weights(weights),
        data_dir=None if data_dir is None else str(absolute_path(data_dir)),
        image_size=image_size,
        classes=classes,
        shots=shots,
        seed=seed,
        resize=resize,
        source_data=None if source_data is None else check_source_data(source_data),
    )


def check_source_data(path: str | Path) -> DatasetSource:
    """Checks the option `source_data` without opening an image.

    Args:
        path: A labelled folder or a CSV manifest, as for a dataset; names of datasets are not accepted.

    Raises:
        UsageError: There is no such folder or file, or it cannot be a dataset.
    """
    absolute = absolute_path(path)
    if not os.path.exists(absolute):  # noqa: PTH110 - pathlib raises where a name is too long
        raise UsageError(
            f"--source-data {path}: no such folder or file; expected one subfolder of images per class, or a CSV"
        )
    with errors_in("--source-data"):
        return resolve(absolute)


def check_candidates(value: Any) -> tuple[Candidate, ...]:
    """Returns the backbones of a list, with names and image sizes checked; their files, and timm, may be missing.

    Missing weights are logged with their line if the list is a file; the search will leave their backbones out.

    Raises:
        UsageError: As in `parse_candidates`, or a backbone is unknown, or an image size out of range.
    """

    def check_name(name: str) -> None:
        with suppress(MissingTimmError):
            parse_backbone(name)

    found = parse_candidates(value, {"name": check_name, "image_size": partial(check_image_size, "image_size")})
    for candidate in found:
        is_file = candidate.weights not in ("default", "none")
        if candidate.place and is_file and not os.path.isfile(candidate.weights):  # noqa: PTH113 - as below
            where, weights, name = candidate.place, candidate.weights, candidate.name
            _log.warning("%s: weights %s: no such file, so that %s will be left out", where, weights, name)
    return found


def check_weights(weights: str | Path) -> str:
    """Returns "default", "none" or the absolute path of a file of weights.

    Raises:
        UsageError: There is no such file.
    """
    if str(weights) in ("default", "none"):
        return str(weights)
    path = absolute_path(weights)
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib raises where a name is too long
        raise UsageError(f"--weights {weights}: no such file; expected default, none, or a .pth or .safetensors file")
    return str(path)
