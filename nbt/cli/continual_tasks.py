"""The scenarios data, task and class of `nbt continual`: streams of tasks by one method or several."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_task
from nbt.cli.options.continual import given_options, recipes_from_options, stream_settings_from_options
from nbt.paths import check_writable_folder
from nbt.training.recipe.checks import check_starting_weights

if TYPE_CHECKING:
    from nbt.task.options import TaskOptions

_TASK_STREAM_TASK_OPTIONS = ("data_dir", "backbone", "weights", "image_size", "classes", "shots", "seed")
_PATHS = ("data_dir", "file", "folder")


def run_task_streams(out: Output, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Runs the streams that the options ask for; returns them in JSON types, and what to say of them."""
    task_options = {name: options[name] for name in _TASK_STREAM_TASK_OPTIONS}
    task = check_task({"dataset": options["dataset"], **task_options})
    check_writable_folder("--out", options["folder"])
    plain = {"scenario": options["scenario"], "methods": recipes_from_options(options), "tasks": options["tasks"]}
    fields = stream_settings_from_options(options)
    command = reproduce_command(click.get_current_context(), task)
    from nbt import api

    for settings in api.check_streams(**plain, more=fields).values():
        check_starting_weights(settings.recipe, task.backbone, task.source.dataset, task.weights)
    from nbt.cli.display.stream_progress import StreamProgress

    with StreamProgress(out) as progress:
        try:
            outcome = api.continual(
                options["dataset"],
                **plain,
                more=fields,
                seeds=options["seeds"],
                out=options["folder"],
                tracking_uri=options["tracking_uri"],
                fresh=options["fresh"],
                observer=progress,
                command=command,
                progress=progress.update,
                **task_options,
            )
        except KeyboardInterrupt:
            again = "the same command without --fresh" if options["fresh"] else "the same command"
            raise KeyboardInterrupt(f"interrupted: {progress.kept}; {again} continues") from None
    from nbt.cli.display.stream_summary import comparison_text

    return outcome.to_json(), comparison_text(outcome.comparison, _relative_path(outcome.report_path))


def reproduce_command(ctx: click.Context, task: TaskOptions) -> str:
    """Returns the command line that makes the same streams, as far as options say so.

    Args:
        ctx: Of `nbt continual`.
        task: What its options of the task mean.
    """
    words = ["nbt", "continual"]
    for name, param in given_options(ctx).items():
        # Flags say how to run and to print, not what.
        if name in ctx.params and name != "fresh":
            value = ctx.params[name]
            for item in value if isinstance(value, tuple) else (value,):
                words += [param.opts[0], _portable_value(name, str(item), task)]
    return shlex.join(words)


def _portable_value(name: str, value: str, task: TaskOptions) -> str:
    """Returns the value of an option as it means the same in every folder, without a password."""
    from nbt.paths import absolute_path
    from nbt.tracking import redact_uri

    if name == "dataset":
        return task.source.dataset
    if name == "weights":
        return task.weights
    if name in _PATHS:
        return str(absolute_path(value))
    return redact_uri(value) if name == "tracking_uri" else value


def _relative_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
