"""`nbt continual`: transfer to a stream of tasks, or to classes that arrive one after another."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent, relative_path
from nbt.cli.options.checks import check_task
from nbt.cli.options.common import Command, given_parameters
from nbt.cli.options.continual import (
    check_options,
    continual_options,
    recipes_from_options,
    stream_settings_from_options,
)
from nbt.errors import UsageError, errors_in
from nbt.paths import absolute_path, check_outside, check_writable_folder
from nbt.settings.class_stream import ClassStreamSettings
from nbt.settings.continual import SCENARIOS
from nbt.training.recipe.checks import check_starting_weights

if TYPE_CHECKING:
    from nbt.task.options import TaskOptions

_CLASS_STREAM_TASK_OPTIONS = ("dataset", "data_dir", "backbone", "weights", "image_size", "resize", "seed")
_TASK_STREAM_TASK_OPTIONS = ("data_dir", "backbone", "weights", "image_size", "classes", "shots", "resize", "seed")
_STANDARD_OPTIONS = ("epochs", "batch_size")
_PATH_OPTIONS = ("data_dir", "file", "folder")


@click.command(cls=Command)
@continual_options
def command(out: Output, scenario: str, **options: Any) -> None:
    """Learn a stream of tasks or classes; rerun to resume.

    The scenarios data, task and class divide a dataset into tasks. In data, every task has new images of all classes.
    In task and class, every task has new classes; at test time the task of an image is known (task) or not (class).
    Every --method learns the same stream and is tested on all tasks after each task. The command writes reports/NAME/
    and one MLflow run per stream. The same command resumes unfinished streams and does not repeat finished ones.

    The scenario stream is the transfer of the zapping paper: a new head learns one class after another, one image per
    step and every image once (--protocol continual), or the same images in shuffled batches (--protocol standard). A
    sweep on separate draws selects the learning rate. The test accuracy is measured after the whole stream.
    """
    check_options(click.get_current_context(), scenario)
    facts, text = _RUNNERS[scenario](out, {"scenario": scenario, **options})
    if out.json:
        out.print_json({"scenario": scenario, **facts})
    else:
        out.print(*text)


def _run_class_stream(out: Output, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Runs the scenario stream; returns its results in JSON types and as lines of text."""
    settings = class_stream_settings(options)
    task_options = {name: options[name] for name in _CLASS_STREAM_TASK_OPTIONS}
    check_task({**task_options, "classes": None, "shots": None})
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        from nbt import api
        from nbt.training.pretrain.class_stream import limit_classes, run_class_stream

        task = api.load_task(task_options.pop("dataset"), progress=progress.update, **task_options)
        chosen = settings if options["classes"] is not None else limit_classes(settings, task)
        result = run_class_stream(task, chosen, options["seed"], progress=progress.update)
    facts = {"dataset": task.dataset, "backbone": task.backbone.text, "weights": task.weights, **result.to_dict()}
    return facts, class_stream_text(facts)


def class_stream_settings(options: Mapping[str, Any]) -> ClassStreamSettings:
    """Returns the settings of a class stream, without importing torch.

    Args:
        options: Values of the options of `nbt continual`.

    Raises:
        UsageError: A value is invalid, or an option belongs to the other protocol.
    """
    for name in _STANDARD_OPTIONS:
        if options["protocol"] != "standard" and options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is an option of --protocol standard")
    names = ("protocol", "train_layers", "classes", "skip_classes", "train", "test", "draws", "sweep_draws")
    values = {name: options[name] for name in (*names, *_STANDARD_OPTIONS) if options[name] is not None}
    if options["lr"] is not None:
        values["rates"] = (options["lr"],)
    return ClassStreamSettings(**values)


def class_stream_text(facts: Mapping[str, Any]) -> list[str]:
    """Returns the results of a class stream as lines of text.

    Args:
        facts: Dataset, backbone, weights, and `ClassStreamResult.to_dict()`.
    """
    from nbt.report.metric_text import interval_text
    from nbt.tuning.intervals import accuracy_interval

    accuracy = interval_text(accuracy_interval(facts["accuracies"]))
    selection = " (selected on separate draws)" if facts["sweep"] else ""
    layers = "all layers" if facts["train_layers"] == "all" else "head only"
    return [
        f"{facts['protocol']} transfer of {facts['backbone']} to {facts['classes']} classes of {facts['dataset']}: "
        f"{facts['train']} images per class, {facts['steps']} steps, {layers}, learning rate {facts['rate']:g}"
        f"{selection}",
        f"test accuracy {accuracy} over {facts['draws']} draws; "
        f"training accuracy {percent(sum(facts['train_accuracies']) / facts['draws'])}",
    ]


def _run_task_streams(out: Output, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Runs the scenarios data, task and class; returns their results in JSON types and as text and tables."""
    task_options = {name: options[name] for name in _TASK_STREAM_TASK_OPTIONS}
    task = check_task({"dataset": options["dataset"], **task_options})
    check_writable_folder("--out", options["folder"])
    check_outside("--out", options["folder"], task.source.path)
    stream_options = {
        "scenario": options["scenario"],
        "methods": recipes_from_options(options),
        "tasks": options["tasks"],
        "more": stream_settings_from_options(options),
    }
    command_line = reproduce_command(click.get_current_context(), task)
    from nbt import api

    for settings in api.check_streams(**stream_options).values():
        with errors_in(options["file"]):
            check_starting_weights(settings.recipe, task.backbone, task.source.dataset, task.weights)
    from nbt.display.stream_progress import StreamProgress

    with StreamProgress(out.progress_mode) as progress:
        try:
            outcome = api.continual(
                options["dataset"],
                **stream_options,
                seeds=options["seeds"],
                workers=options["workers"],
                out=options["folder"],
                tracking_uri=options["tracking_uri"],
                fresh=options["fresh"],
                observer=progress,
                command=command_line,
                export=options["export"],
                progress=progress.update,
                **task_options,
            )
        except KeyboardInterrupt:
            hint = " without --fresh" if options["fresh"] else ""
            raise KeyboardInterrupt(
                f"interrupted: {progress.stored_summary}; to continue, run the same command{hint}"
            ) from None
    from nbt.cli.display.stream_summary import comparison_text

    return outcome.to_json(), comparison_text(outcome.comparison, relative_path(outcome.report_path))


def reproduce_command(ctx: click.Context, task: TaskOptions) -> str:
    """Returns the command line that reproduces the same streams from any working directory.

    Args:
        ctx: Context of `nbt continual`.
        task: The checked task options.
    """
    arguments = ["nbt", "continual"]
    for name, param in given_parameters(ctx).items():
        # These and the output flags, which are no longer in `ctx.params`, do not change the results.
        if name in ctx.params and name not in ("fresh", "workers", "export"):
            value = ctx.params[name]
            for item in value if isinstance(value, tuple) else (value,):
                arguments += [param.opts[0], _portable_value(name, str(item), task)]
    return shlex.join(arguments)


def _portable_value(name: str, value: str, task: TaskOptions) -> str:
    """Returns the value of an option with absolute paths and without passwords."""
    from nbt.tracking import redact_uri

    if name == "dataset":
        return task.source.dataset
    if name == "weights":
        return task.weights
    if name in _PATH_OPTIONS:
        return str(absolute_path(value))
    return redact_uri(value) if name == "tracking_uri" else value


_RUNNERS: dict[str, Callable[[Output, Mapping[str, Any]], tuple[dict[str, Any], list[Any]]]] = {
    "stream": _run_class_stream,
    **dict.fromkeys(SCENARIOS, _run_task_streams),
}
