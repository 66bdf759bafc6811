"""Check that studies can be compared: the same images, classes and parts, and the same kind of task."""

from __future__ import annotations

from collections.abc import Sequence

from nbt.errors import UsageError
from nbt.tuning.storage.records import StudyRecord


def check_same_data(records: Sequence[StudyRecord]) -> None:
    """Checks that studies are of the same images; image size and resize rule may differ, as they are part of a recipe.

    Args:
        records: At least one study.

    Raises:
        UsageError: Two studies are of different images, or one is of a stream of tasks and the other is not.
    """
    first = records[0]
    for other in records[1:]:
        names = f"{first.config.name} and {other.config.name}"
        if (first.config.scenario, first.config.tasks) != (other.config.scenario, other.config.tasks):
            raise UsageError(f"studies {names} cannot be compared: they are of different streams of tasks")
        if not _have_same_images(first, other):
            raise UsageError(
                f"studies {names} cannot be compared: they are of different data ({_data(first)}, and {_data(other)}); "
                "compare studies of the same images, classes and parts"
            )


def _have_same_images(first: StudyRecord, other: StudyRecord) -> bool:
    a, b = first.config, other.config
    is_known = a.content_hash is not None and b.content_hash is not None
    if is_known and a.content_hash != b.content_hash:
        return False
    if a.data_hash == b.data_hash:
        return True
    # That hash also covers the image size and the resize rule. The seed selects the images of `shots`.
    selections = [(c.classes, c.shots, None if c.shots is None else c.seed) for c in (a, b)]
    classes = [(tuple(record.class_names), tuple(record.class_images)) for record in (first, other)]
    tested = [record.dataset.get("test_images") for record in (first, other)]
    is_same_source = is_known or (bool(first.class_names) and (a.dataset, a.data_dir) == (b.dataset, b.data_dir))
    has_same_parts = selections[0] == selections[1] and classes[0] == classes[1] and tested[0] == tested[1]
    return is_same_source and has_same_parts


def _data(record: StudyRecord) -> str:
    config = record.config
    options = {"classes": config.classes, "shots": config.shots}
    words = [config.dataset, *(f"{name} {value}" for name, value in options.items() if value is not None)]
    if config.shots is not None:
        words.append(f"seed {config.seed}")
    return " with ".join([words[0], ", ".join(words[1:])]) if len(words) > 1 else words[0]
