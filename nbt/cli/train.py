"""`nbt train`: trains with known settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_task
from nbt.cli.options.common import AT_LEAST_ONE, Command, config_option, task_options, workers_option
from nbt.settings import TransferSettings


@click.command(cls=Command)
@task_options
@click.option(
    "--settings",
    "file",
    required=True,
    metavar="FILE",
    help="Settings in YAML, such as recommended.yaml of a report.",
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
def command(out: Output, dataset: str, file: str, export: str | None, **options: Any) -> None:
    """Train with known settings and evaluate once on the test set.

    Every seed has its own train/validation split; several seeds give the validation accuracy an interval. The model
    that is tested and exported is trained on the training and validation images together.
    """
    from nbt.paths import check_outside
    from nbt.training.export.model_folder import check_export
    from nbt.training.recipe.checks import check_starting_weights

    settings = TransferSettings.load(file)
    task = check_task({"dataset": dataset, **options})
    check_starting_weights(settings, task.backbone, task.source.dataset, task.weights)
    folder = None if export is None else Path(export)
    if folder is not None:
        check_export(folder, "--export")
        check_outside("--export", folder, task.source.path)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        from nbt import api

        result = api.train(dataset, settings, export=folder, progress=progress.update, **options)
    if out.json:
        out.print_json(result.to_json())
        return
    from nbt.cli.display.summary import training_summary

    out.print(training_summary(result, folder))
