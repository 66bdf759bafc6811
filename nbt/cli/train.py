"""`nbt train`: final training with settings that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_task
from nbt.cli.options.common import AT_LEAST_ONE, SEED, Command, task_options


@click.command(cls=Command)
@task_options
@click.option("--settings", "file", required=True, metavar="FILE", help="YAML, such as a report's recommended.yaml.")
@click.option("--seeds", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Validation runs.")
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="First seed.")
@click.option("--export", metavar="DIR", help="Write the model there, for nbt predict; replaces only a model.")
def command(out: Output, dataset: str, file: str, export: str | None, **options: Any) -> None:
    """Train with given settings, then evaluate on test once.

    With several seeds, each run has its own train/validation split and the validation accuracy gets an interval.
    The tested and exported model is trained on train + validation.
    """
    from nbt.settings import TransferSettings
    from nbt.training.export.model_folder import check_export
    from nbt.training.recipe.checks import check_starting_weights

    settings = TransferSettings.load(file)
    task = check_task({"dataset": dataset, **options})
    check_starting_weights(settings, task.backbone, task.source.dataset, task.weights)
    folder = None if export is None else Path(export)
    if folder is not None:
        check_export(folder, "--export")
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        from nbt import api

        result = api.train(dataset, settings, export=folder, progress=progress.update, **options)
    if out.json:
        out.print_json(result.to_json())
        return
    from nbt.cli.display.summary import training_summary

    out.print(training_summary(result.validation, result.test, folder))
