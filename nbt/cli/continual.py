"""`nbt continual`: transfer to classes that come one after another, or to a stream of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from nbt.cli.continual_tasks import run_task_streams
from nbt.cli.display.output import Output, interval_text, percent
from nbt.cli.options.checks import check_task
from nbt.cli.options.common import Command
from nbt.cli.options.continual import SCENARIOS, check_options, continual_options
from nbt.errors import UsageError
from nbt.settings.class_stream import ClassStreamSettings

_TASK_OPTIONS = ("dataset", "data_dir", "backbone", "weights", "image_size", "seed")
_STANDARD_OPTIONS = ("epochs", "batch_size")


@click.command(cls=Command)
@continual_options
def command(out: Output, scenario: str, **options: Any) -> None:
    """Learn tasks, or classes, that come one after another.

    In the scenarios data, task and class a dataset is divided into tasks: other images of the same classes, or other
    classes, of which it is known (task) or not known (class) at test time to which task an image belongs. Each --method
    learns the same stream and is tested on all tasks after each; several are compared. Writes reports/NAME/ and an
    MLflow run a stream. The same command goes on where it was stopped, and shows what is finished at once.

    The scenario stream is the zapping paper's transfer: a fresh head, class after class, one image a step, each image
    once (--protocol continual), or the same images in shuffled batches (standard). The learning rate is chosen on
    draws of its own. The test accuracy is taken after the whole stream.
    """
    check_options(click.get_current_context(), scenario)
    facts, text = _SCENARIOS[scenario](out, {"scenario": scenario, **options})
    if out.json:
        out.print_json({"scenario": scenario, **facts})
    else:
        out.print(*text)


def _run_class_stream(out: Output, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    settings = make_settings(options)
    task_options = {name: options[name] for name in _TASK_OPTIONS}
    check_task({**task_options, "classes": None, "shots": None})
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        from nbt import api
        from nbt.training.pretrain.class_stream import limit_classes, run_class_stream

        task = api.load_task(task_options.pop("dataset"), progress=progress.update, **task_options)
        chosen = settings if options["classes"] is not None else limit_classes(settings, task)
        result = run_class_stream(task, chosen, options["seed"], progress=progress.update)
    facts = {"dataset": task.dataset, "backbone": task.backbone.text, "weights": task.weights, **result.to_dict()}
    return facts, class_stream_text(facts)


def make_settings(options: dict[str, Any]) -> ClassStreamSettings:
    """Returns the protocol, without torch.

    Raises:
        UsageError: An option is wrong, or belongs to the other protocol.
    """
    for name in _STANDARD_OPTIONS:
        if options["protocol"] != "standard" and options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is an option of --protocol standard")
    names = ("protocol", "train_layers", "classes", "skip_classes", "train", "test", "draws", "sweep_draws")
    values = {name: options[name] for name in (*names, *_STANDARD_OPTIONS) if options[name] is not None}
    if options["lr"] is not None:
        values["rates"] = (options["lr"],)
    return ClassStreamSettings(**values)


def class_stream_text(facts: dict[str, Any]) -> list[str]:
    """Returns what a stream gave, for people."""
    from nbt.tuning.intervals import accuracy_interval

    accuracy = interval_text(accuracy_interval(facts["accuracies"]))
    chosen = " (chosen on draws of its own)" if facts["sweep"] else ""
    layers = "all layers" if facts["train_layers"] == "all" else "the head alone"
    return [
        f"{facts['protocol']} transfer of {facts['backbone']} to {facts['classes']} classes of {facts['dataset']}: "
        f"{facts['train']} images a class, {facts['steps']} steps, {layers}, rate {facts['rate']:g}{chosen}",
        f"test accuracy {accuracy} over {facts['draws']} draws; "
        f"on its own training images {percent(sum(facts['train_accuracies']) / facts['draws'])}",
    ]


_SCENARIOS: dict[str, Callable[[Output, dict[str, Any]], tuple[dict[str, Any], list[Any]]]] = {
    "stream": _run_class_stream,
    **dict.fromkeys(SCENARIOS, run_task_streams),
}
