"""Settings as one flat row of plain values and as a short summary, for tables, MLflow and run names."""

from __future__ import annotations

from collections.abc import Iterable

from nbt.models.teacher import short_teacher_names
from nbt.settings import SETTINGS, TransferSettings
from nbt.settings.teacher_names import parse_teacher_names
from nbt.tuning.storage.records import StudyConfig

Plain = float | int | bool | str

# These come last in a summary, so that the names of stored MLflow runs do not change.
_LAST_IN_SUMMARY = ("linearized", "target_scale", "mixup")


def setting_descriptions() -> dict[str, str]:
    """Returns the text of every entry of `flat_settings`."""
    return {
        column: item.text if column == item.name else f"{item.text} Here: {column.removeprefix(item.name + '_')}."
        for item in SETTINGS.values()
        for column in item.columns
    }


def flat_settings(settings: TransferSettings) -> dict[str, Plain]:
    """Returns every setting by name; `layer_lr_shape` becomes one entry per knot, e.g. "layer_lr_shape_input".

    The names and their order are the same for all settings, but `backbone` is left out for the backbone of the task.
    """
    return _flat(settings, SETTINGS)


def stored_flat_settings(settings: TransferSettings) -> dict[str, Plain]:
    """Returns the part of `flat_settings` that is stored: settings newer than version 0.1 only if they are not neutral.

    So a new setting changes no MLflow run of an earlier version.
    """
    return _flat(settings, settings.to_dict())


def _flat(settings: TransferSettings, names: Iterable[str]) -> dict[str, Plain]:
    flat: dict[str, Plain] = {}
    for name in names:
        item, value = SETTINGS[name], settings.value(name)
        if name == "backbone" and not value:
            continue
        flat |= dict(zip(item.columns, value if item.knots else (value,), strict=True))
    return flat


def study_recipe_summary(config: StudyConfig, settings: TransferSettings) -> str:
    """Returns the summary of a recipe of a study, with backbone and teacher where it has several of them."""
    return recipe_summary(config.named(settings), teacher_of(config, settings))


def teacher_of(config: StudyConfig, settings: TransferSettings) -> str:
    """Returns the short name of the teacher whose weights a recipe injects; "" without one, and with a single one."""
    names = parse_teacher_names(config.teacher)
    return short_teacher_names(names).get(settings.source.teacher, "") if len(names) > 1 else ""


def recipe_summary(settings: TransferSettings, teacher: str = "") -> str:
    """Returns a short summary of the recipe, e.g. "depth 0.60 frozen 0.30 lr 0.013".

    Depths and the relevant learning rate are always included; other settings where they have a label and are used.

    Args:
        settings: The recipe.
        teacher: Name of the teacher whose weights it injects; "" leaves it out.
    """
    probe = settings.frozen_depth >= 1.0
    labels = {name: item.summary(settings.value(name)) for name, item in SETTINGS.items()} | {"teacher": teacher}
    words = [
        f"depth {settings.transfer_depth:.2f}",
        f"frozen {settings.frozen_depth:.2f}",
        f"head lr {settings.head_lr:.2g}" if probe else f"lr {settings.body_lr:.2g}",
        *(label for name, label in labels.items() if name not in _LAST_IN_SUMMARY),
        *(labels[name] for name in _LAST_IN_SUMMARY),
    ]
    return " ".join(word for word in words if word)
