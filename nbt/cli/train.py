"""`nbt train`: trains with known settings."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import TASK_OPTIONS, check_study, check_task
from nbt.cli.options.common import (
    AT_LEAST_ONE,
    Command,
    config_option,
    given_parameters,
    task_options,
    workers_option,
)
from nbt.errors import UsageError, errors_in
from nbt.settings import TransferSettings

_TASK_OPTIONS = (*TASK_OPTIONS, "resize")
# With another dataset or backbone than that of the study, these options of the study have no meaning.
_DEPENDENT_OPTIONS = {"dataset": ("data_dir", "classes", "shots"), "backbone": ("weights", "image_size")}


@click.command(cls=Command)
@functools.partial(task_options, dataset={"required": False, "show_default": "that of --study"})
@click.option(
    "--settings",
    "file",
    metavar="FILE",
    show_default="those of --study, else the tuned default",
    help="Settings in YAML, such as recommended.yaml of a report.",
)
@config_option(
    "study",
    help="Study whose recommended settings, dataset and backbone are used unless they are given.",
    show_default="none",
)
@config_option("storage")
@config_option(
    "source_data",
    help="Labelled images of what the weights were trained on: the command reports how well the weights' own "
    "classifier still classifies them.",
)
@click.option(
    "--seeds", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Number of validation runs."
)
@workers_option
@config_option("seed", help="First seed; further runs use the integers after it.")
@click.option(
    "--export",
    metavar="DIR",
    show_default="none",
    help="Folder for the trained model, see nbt predict: new, empty, or a model to replace.",
)
@config_option("tracking_uri")
@config_option("register", help="Register the exported model in MLflow under this name.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    out: Output,
    file: str | None,
    export: str | None,
    tracking_uri: str | None,
    register: str | None,
    **options: Any,
) -> None:
    """Train with known settings and evaluate once on the test set.

    The settings are those of --settings, else those that --study recommends, else the tuned default, a recipe
    that was found on other datasets. A file with {} gives the default recipe, plain fine-tuning.

    Every seed has its own train/validation split; several seeds give the validation accuracy an interval. The model
    that is tested and exported is trained on the training and validation images together.
    """
    from nbt.paths import check_outside
    from nbt.tracking import resolve_uri
    from nbt.training.export.model_folder import check_export, check_register
    from nbt.training.recipe.checks import check_starting_weights

    uri = resolve_uri(tracking_uri)
    check_register(register, export)
    settings, origin = _take_settings(file, options, set(given_parameters(ctx)))
    dataset = options.pop("dataset")
    task = check_task({"dataset": dataset, **options})
    with errors_in(file):
        check_starting_weights(settings, task.backbone, task.source.dataset, task.weights)
    folder = None if export is None else Path(export)
    if folder is not None:
        check_export(folder, "--export")
        for source in (task.source, task.source_data):
            check_outside("--export", folder, None if source is None else source.path)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        progress.keep(f"training with {origin}")
        from nbt import api

        result = api.train(
            dataset,
            settings,
            export=folder,
            tracking_uri=uri,
            register=register,
            progress=progress.update,
            **options,
        )
    if out.json:
        out.print_json(result.to_json())
        return
    from nbt.cli.display.summary import training_summary

    out.print(*training_summary(result, folder))


def _take_settings(file: str | None, options: dict[str, Any], given: Collection[str]) -> tuple[TransferSettings, str]:
    """Returns the settings to train with, and their origin in words.

    Args:
        file: The option `--settings`.
        options: The other options; study and storage are removed, and those of a task are taken from the study.
        given: Names of the options on the command line.

    Raises:
        UsageError: Options exclude each other, the dataset is missing, or the study or the settings are invalid.
    """
    study, storage = options.pop("study"), options.pop("storage")
    check_study(study, storage)
    if storage is not None and study is None:
        raise UsageError("--storage is of no use without --study")
    if study is not None:
        from nbt import api

        recommended, config = api.study_recipe(study, storage)
        own = {*given, *(name for other in given for name in _DEPENDENT_OPTIONS.get(other, ()))}
        options |= {name: getattr(config, name) for name in _TASK_OPTIONS if name not in own}
    if options["dataset"] is None:
        raise UsageError("missing --dataset; see nbt train --help")
    if file is not None:
        settings = TransferSettings.load(file)
        plain = settings == TransferSettings(epochs=settings.epochs)
        return settings, f"{'the default recipe, plain fine-tuning, from' if plain else 'the settings of'} {file}"
    if study is not None:
        return recommended, f"the recommended settings of study {study}"
    from nbt.tuning.tuned_recipes import TUNED_DEFAULT, tuned_default

    tuned = tuned_default()
    words = f"the recipe {TUNED_DEFAULT} for {tuned.epochs} epochs, because neither --settings nor --study is given"
    return tuned, words
