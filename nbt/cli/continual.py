"""`nbt continual`: transfer to classes that come one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from nbt.cli.checks import check_task
from nbt.cli.options import AT_LEAST_ONE, SEED, Command, choice_option
from nbt.cli.output import Output, interval_text, percent
from nbt.errors import UsageError
from nbt.training.stream_settings import PROTOCOLS, TRAIN_LAYERS, StreamSettings

_TASK = ("dataset", "data_dir", "backbone", "weights", "image_size", "seed")
_OF_STANDARD = ("epochs", "batch_size")


@click.command(cls=Command)
@choice_option("--scenario", ("stream",), required=True, help="See above.")
@click.option("--dataset", required=True, metavar="NAME|FOLDER|CSV", help="What to transfer to; see nbt datasets.")
@click.option("--data-dir", metavar="DIR", help="Where a dataset known by name already is.")
@click.option("--backbone", metavar="NAME", help="Of the weights, such as 'conv3(width=256)'.")
@click.option("--weights", metavar="default|none|FILE", default="default", show_default=True, help="See nbt pretrain.")
@click.option("--image-size", metavar="PIXELS", type=int, help="Side of the images.")
@choice_option("--protocol", PROTOCOLS, default="continual", show_default=True, help="Order of the images.")
@choice_option("--train-layers", TRAIN_LAYERS, default="all", show_default=True, help="What Adam trains.")
@click.option("--classes", metavar="N", type=int, help="Classes of a draw; 600, or all where there are fewer.")
@click.option("--skip-classes", metavar="N", type=int, default=0, help="Leave out the first N, as pretrained on.")
@click.option("--train", metavar="N", type=AT_LEAST_ONE, default=15, show_default=True, help="Images a class.")
@click.option("--test", metavar="N", type=AT_LEAST_ONE, default=5, show_default=True, help="Images a class.")
@click.option("--draws", metavar="N", type=AT_LEAST_ONE, default=10, show_default=True, help="Runs that are averaged.")
@click.option("--sweep-draws", metavar="N", type=AT_LEAST_ONE, default=2, show_default=True, help="Runs for each rate.")
@click.option("--lr", metavar="RATE", type=float, help="Adam's rate; chosen of eight when not given.")
@click.option("--epochs", metavar="N", type=AT_LEAST_ONE, help="Of standard; 10 when not given.")
@click.option("--batch-size", metavar="N", type=AT_LEAST_ONE, help="Of standard; 32 when not given.")
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of the draws.")
def command(out: Output, scenario: str, **options: Any) -> None:
    """Learn classes that come one after another.

    The scenario stream is the zapping paper's transfer: a fresh head, class after class, one image a step, each image
    once (--protocol continual), or the same images in shuffled batches (standard). The learning rate is chosen on
    draws of its own. The test accuracy is taken after the whole stream.
    """
    facts, text = _SCENARIOS[scenario](out, options)
    if out.json:
        out.print_json({"scenario": scenario, **facts})
    else:
        out.print(*text)


def _run_stream(out: Output, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    settings = make_settings(options)
    task_options = {name: options[name] for name in _TASK}
    check_task({**task_options, "classes": None, "shots": None})
    from nbt.cli.progress import Progress

    with Progress(out) as progress:
        from nbt import pipeline
        from nbt.training.stream import fit_classes, run_stream

        task = pipeline.load_task(task_options.pop("dataset"), progress=progress.stage, **task_options)
        chosen = settings if options["classes"] is not None else fit_classes(settings, task)
        result = run_stream(task, chosen, options["seed"], progress=progress.stage)
    facts = {"dataset": task.dataset, "backbone": task.backbone.text, "weights": task.weights, **result.to_dict()}
    return facts, stream_text(facts)


def make_settings(options: dict[str, Any]) -> StreamSettings:
    """Returns the protocol, without torch.

    Raises:
        UsageError: An option is wrong, or belongs to the other protocol.
    """
    for name in _OF_STANDARD:
        if options["protocol"] != "standard" and options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is an option of --protocol standard")
    names = ("protocol", "train_layers", "classes", "skip_classes", "train", "test", "draws", "sweep_draws")
    values = {name: options[name] for name in (*names, *_OF_STANDARD) if options[name] is not None}
    if options["lr"] is not None:
        values["rates"] = (options["lr"],)
    return StreamSettings(**values)


def stream_text(facts: dict[str, Any]) -> list[str]:
    """Returns what a stream gave, for people."""
    from nbt.search.stats import t_interval

    accuracy = interval_text(t_interval(facts["accuracies"]))
    chosen = " (chosen on draws of its own)" if facts["sweep"] else ""
    layers = "all layers" if facts["train_layers"] == "all" else "the head alone"
    return [
        f"{facts['protocol']} transfer of {facts['backbone']} to {facts['classes']} classes of {facts['dataset']}: "
        f"{facts['train']} images a class, {facts['steps']} steps, {layers}, rate {facts['rate']:g}{chosen}",
        f"test accuracy {accuracy} over {facts['draws']} draws; "
        f"on its own training images {percent(sum(facts['train_accuracies']) / facts['draws'])}",
    ]


_SCENARIOS: dict[str, Callable[[Output, dict[str, Any]], tuple[dict[str, Any], list[str]]]] = {"stream": _run_stream}
