"""`nbt pretrain`: trains a source model, with or without zapping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.checks import check_task
from nbt.cli.options.common import (
    AT_LEAST_ONE,
    Command,
    Number,
    WholeNumberIn,
    choice_option,
    config_option,
)
from nbt.errors import UsageError
from nbt.paths import check_outside, check_writable_file
from nbt.settings import PRETRAIN_SCHEMES, ZAP_SCALES

if TYPE_CHECKING:
    from nbt.settings.pretrain import PretrainSettings
    from nbt.training.pretrain.scheme_sources import PretrainedSource

_IID_OPTIONS = ("epochs", "batch_size")
_EPISODE_OPTIONS = ("episodes", "inner_lr")


@click.command(cls=Command)
@config_option("dataset", required=True, help="Source dataset; of the embedded digits, the classes 0 to 4.")
@config_option("data_dir")
@click.option(
    "--backbone",
    metavar="NAME",
    default="conv3",
    show_default=True,
    help="Architecture; the published one is 'conv3(width=256)'.",
)
@choice_option(
    "--scheme", PRETRAIN_SCHEMES, default="iid", show_default=True, help="Training scheme; see the description above."
)
@click.option(
    "--zap-every",
    metavar="N",
    type=WholeNumberIn(min=0),
    default=0,
    show_default=True,
    help="Epochs (iid) or episodes between zaps; 0 disables zapping.",
)
@choice_option(
    "--zap-scale",
    ZAP_SCALES,
    default="per_row",
    show_default=True,
    help="Standard deviation of the new weights: that of one row, or that of the released code.",
)
@click.option(
    "--zap-fraction",
    metavar="F",
    type=Number(),
    default=1.0,
    show_default=True,
    help="With iid: share of the classes that a zap resets.",
)
@click.option("--epochs", metavar="N", type=AT_LEAST_ONE, show_default="published", help="With iid: epochs.")
@click.option(
    "--batch-size", metavar="N", type=AT_LEAST_ONE, show_default="published", help="With iid: images per batch."
)
@click.option(
    "--episodes", metavar="N", type=AT_LEAST_ONE, show_default="published", help="With asb and meta-asb: episodes."
)
@click.option("--lr", metavar="RATE", type=Number(), show_default="published", help="Learning rate of Adam.")
@click.option(
    "--inner-lr",
    metavar="RATE",
    type=Number(),
    show_default="published",
    help="With asb and meta-asb: learning rate of the steps on single images.",
)
@config_option("image_size", show_default="that of the backbone")
@config_option("classes")
@config_option("shots", help="Use only N images per class.")
@config_option("tracking_uri")
@config_option("resize")
@config_option("seed", help="Seed of weights, order, zaps and images.")
@click.option(
    "--out",
    "file",
    metavar="FILE.safetensors",
    show_default="a file in the cache",
    help="File of the trained weights.",
)
def command(
    out: Output, dataset: str, backbone: str, file: str | None, tracking_uri: str | None, **options: Any
) -> None:
    """Train a source model whose weights serve as --weights FILE.

    iid trains on shuffled batches; --zap-every N resets the head at the start of every Nth epoch. asb trains in
    episodes: single images of one class, then one batch of all classes; --zap-every 1 first resets the row of that
    class in the head. meta-asb trains the weights from which such an episode starts. The published defaults are those
    of the zapping paper; for the embedded digits they are reduced.

    Finished trainings are cached. The same command resumes a training that was stopped.
    """
    names = ("data_dir", "image_size", "classes", "shots", "resize", "seed")
    task = {"dataset": dataset, "backbone": backbone, "weights": "none", **{name: options[name] for name in names}}
    checked = check_task(task)
    settings = settings_from_options(dataset, backbone, options)
    check_file(file)
    from nbt.tracking import resolve_uri

    uri = resolve_uri(tracking_uri)
    if file is not None:
        check_outside("--out", file, checked.source.path)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        try:
            source, images = train(task, settings, progress.update)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted: the same command resumes from the last checkpoint") from None
    path = write(source, file)
    facts = summary(source, settings, path, images)
    track(source, facts, path, {"dataset": dataset, **options}, uri)
    if out.json:
        out.print_json(facts)
        return
    out.print(summary_text(facts), str(path))


def settings_from_options(dataset: str, backbone: str, options: dict[str, Any]) -> PretrainSettings:
    """Returns the settings of the training, without importing torch.

    Args:
        dataset: Name or path of the source dataset.
        backbone: Architecture.
        options: Values of the other options of `nbt pretrain`.

    Raises:
        UsageError: A value is invalid, or an option belongs to another scheme.
    """
    from nbt.models.backbone_spec import parse_backbone
    from nbt.settings.pretrain import default_pretrain_settings

    scheme = options["scheme"]
    for name in _EPISODE_OPTIONS if scheme == "iid" else _IID_OPTIONS:
        if options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is not an option of --scheme {scheme}")
    changes = {name: options[name] for name in ("zap_scale", "zap_fraction", "lr", *_IID_OPTIONS, *_EPISODE_OPTIONS)}
    spec = parse_backbone(backbone)
    digits = dataset == "digits"
    return default_pretrain_settings(scheme, spec.name, digits=digits, zap_period=options["zap_every"], **changes)


def check_file(file: str | None) -> None:
    """Checks `--out`.

    Raises:
        UsageError: The name does not end in .safetensors, or the file cannot be written.
    """
    if file is None:
        return
    if not file.endswith(".safetensors"):
        raise UsageError(f"--out {file}: the name of a weights file ends in .safetensors")
    check_writable_file("--out", file)


def train(task: dict[str, Any], settings: PretrainSettings, progress: Any) -> tuple[PretrainedSource, int]:
    """Loads the images and trains the source model.

    Args:
        task: Values of the options of the task, see `nbt.cli.options.checks.TASK_OPTIONS`.
        settings: Settings of the training.
        progress: Progress callback, see `nbt.progress.Progress`.

    Returns:
        The source model and its number of training images.
    """
    from nbt.data.resolve import resolve
    from nbt.models.backbone import default_image_size
    from nbt.models.backbone_spec import parse_backbone
    from nbt.training.pretrain.scheme_sources import pretrain
    from nbt.training.pretrain.source_images import load_source_images

    spec = parse_backbone(task["backbone"])
    images = load_source_images(
        resolve(task["dataset"], task["data_dir"]),
        task["image_size"] or default_image_size(spec),
        classes=task["classes"],
        shots=task["shots"],
        resize=task["resize"],
        seed=task["seed"],
        progress=progress,
    )
    return pretrain(images, spec, settings, task["seed"], progress=progress), len(images)


def write(source: PretrainedSource, file: str | None) -> Path:
    """Writes the weights to a file, or into the cache without one, and returns the path."""
    from nbt.training.pretrain.source_cache import export_weights

    path = source.recipe.path.with_suffix(".weights.safetensors") if file is None else Path(file)
    export_weights(path, source.state, {"recipe": source.recipe.to_dict()})
    return path


def track(
    source: PretrainedSource, facts: dict[str, Any], path: Path, options: dict[str, Any], tracking_uri: str
) -> None:
    """Records a training in MLflow: its settings, dataset, results and weights.

    Args:
        source: The trained source model.
        facts: See `summary`.
        path: The weights file.
        options: Values of the options of the command.
        tracking_uri: URI of the MLflow tracking store.
    """
    from nbt.tracking.command_tracker import CommandRun, track_command
    from nbt.tracking.run_store import LoggedDataset

    results = ("gradient_steps", "loss", "accuracy", "seconds")
    names = ("dataset", "data_dir", "classes", "shots", "seed")
    settings = {name: value for name, value in facts.items() if name not in (*results, "weights")}
    dataset = LoggedDataset(
        name=options["dataset"],
        digest=source.recipe.images,
        location=options["data_dir"],
        image_size=source.recipe.image_size,
        facts={"classes": facts["classes"], "train_images": facts["images"]},
    )
    run = CommandRun(
        command="pretrain",
        name=f"pretrain {facts['backbone']} {facts['scheme']}",
        params=settings | {name: options[name] for name in names},
        metrics={name: float(facts[name]) for name in results},
        dataset=dataset,
        files=[path],
        seconds=facts["seconds"],
    )
    track_command(run, tracking_uri)


def summary(source: PretrainedSource, settings: PretrainSettings, path: Path, images: int) -> dict[str, Any]:
    """Returns the facts of a training in JSON types: accuracy 0 ... 1, seconds 0 if the source came from the cache.

    Args:
        source: The trained source model.
        settings: Settings of the training.
        path: The weights file.
        images: Number of training images.
    """
    means = source.weights.source_means
    return {
        "weights": str(path),
        "backbone": source.recipe.backbone,
        "image_size": source.recipe.image_size,
        "classes": 0 if means is None else len(means.counts),
        "images": images,
        **settings.to_dict(),
        "gradient_steps": settings.gradient_steps(images),
        "loss": source.loss,
        "accuracy": source.accuracy,
        "seconds": source.seconds,
        "cached": source.seconds == 0.0,
    }


def summary_text(facts: dict[str, Any]) -> str:
    """Returns the facts of a training, see `summary`, as one line of text."""
    period = facts["zap_period"]
    rounds, unit = (facts["epochs"], "epoch") if facts["scheme"] == "iid" else (facts["episodes"], "episode")
    zaps = f"zapped every {period} {unit}s" if period > 1 else f"zapped every {unit}" if period else "not zapped"
    seconds = "from the cache" if facts["cached"] else f"{facts['seconds']:.0f} s"
    return (
        f"{facts['backbone']} at {facts['image_size']} px, {facts['scheme']}, {zaps}: {rounds} {unit}s on "
        f"{facts['images']} images of {facts['classes']} classes, training accuracy "
        f"{percent(facts['accuracy'])} ({seconds})"
    )
