"""Names of the backbones of a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.settings.candidate import Candidate

if TYPE_CHECKING:
    from nbt.task.task import Task


def candidate_labels(items: Sequence[Candidate]) -> list[str]:
    """Returns a name for each entry of a list: with the path of its weights or its size where needed.

    The names do not depend on the place in the list; equal entries have equal names.
    """
    names = [_label(item, Path(item.weights).name) for item in items]
    paths = [_label(item, item.weights) for item in items]
    sizes = [
        path + (f" at {item.image_size} px" if item.image_size else "") for item, path in zip(items, paths, strict=True)
    ]
    choices = zip(names, paths, sizes, strict=True)
    counts = Counter(names), Counter(paths)
    return [name if counts[0][name] == 1 else path if counts[1][path] == 1 else size for name, path, size in choices]


def _label(item: Candidate, weights: str) -> str:
    return item.name if item.weights == "default" else f"{item.name} with weights {weights}"


def candidate_names(tasks: Sequence[Task]) -> list[str]:
    """Returns a name for each backbone: its specification, where it is not unique with weights and image size."""
    texts = [task.backbone.text for task in tasks]
    weights = [f"{text}, {Path(task.weights).name}" for text, task in zip(texts, tasks, strict=True)]
    sizes = [f"{name}, {task.image_size} px" for name, task in zip(weights, tasks, strict=True)]
    hashes = [f"{name}, {task.weights_hash[:8]}" for name, task in zip(sizes, tasks, strict=True)]
    counts = Counter([*texts, *weights, *sizes])
    choices = zip(texts, weights, sizes, hashes, strict=True)
    return [next((name for name in names[:3] if counts[name] == 1), names[3]) for names in choices]
