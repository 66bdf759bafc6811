"""`nbt pretrain`: a source model of one's own, with or without zapping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.checks import check_task
from nbt.cli.options.common import AT_LEAST_ONE, SEED, Command, choice_option
from nbt.errors import UsageError
from nbt.paths import check_writable_file
from nbt.settings import PRETRAIN_SCHEMES, ZAP_SCALES

if TYPE_CHECKING:
    from nbt.settings.pretrain import PretrainSettings
    from nbt.training.pretrain.scheme_sources import PretrainedSource

_IID_OPTIONS = ("epochs", "batch_size")
_EPISODE_OPTIONS = ("episodes", "inner_lr")


@click.command(cls=Command)
@click.option("--dataset", required=True, metavar="NAME|FOLDER|CSV", help="What to train on; digits are 0-4 then.")
@click.option("--data-dir", metavar="DIR", help="Where a dataset known by name already is.")
@click.option("--backbone", metavar="NAME", default="conv3", show_default=True, help="Published: 'conv3(width=256)'.")
@choice_option("--scheme", PRETRAIN_SCHEMES, default="iid", show_default=True, help="See above.")
@click.option("--zap-every", metavar="N", type=click.IntRange(min=0), default=0, show_default=True, help="0 is never.")
@choice_option("--zap-scale", ZAP_SCALES, default="per_row", show_default=True, help="Deviation of the new weights.")
@click.option("--zap-fraction", metavar="F", type=float, default=1.0, show_default=True, help="Of the classes (iid).")
@click.option("--epochs", metavar="N", type=AT_LEAST_ONE, help="Of iid.")
@click.option("--batch-size", metavar="N", type=AT_LEAST_ONE, help="Of iid.")
@click.option("--episodes", metavar="N", type=AT_LEAST_ONE, help="Of asb and meta-asb.")
@click.option("--lr", metavar="RATE", type=float, help="Adam's.")
@click.option("--inner-lr", metavar="RATE", type=float, help="Of the single steps of asb and meta-asb.")
@click.option("--image-size", metavar="PIXELS", type=int, help="Side of the images.")
@click.option("--classes", metavar="N", type=int, help="Use the first N classes only.")
@click.option("--shots", metavar="N", type=int, help="Use N images a class only.")
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of everything random.")
@click.option("--out", "file", metavar="FILE.safetensors", help="Where the weights go; into the cache when not given.")
def command(out: Output, dataset: str, backbone: str, file: str | None, **options: Any) -> None:
    """Train a source model; its weights serve as --weights FILE.

    iid: shuffled batches; --zap-every N resets the head at the start of every Nth epoch. asb: episodes of single
    images of one class, then a batch; --zap-every 1 resets that class's row first. meta-asb: the same, and it learns
    the weights from which such an episode goes well. Numbers that are not given are the published ones.

    What has been trained is cached, and a killed training goes on where it was, by the same command line.
    """
    names = ("data_dir", "image_size", "classes", "shots", "seed")
    task = {"dataset": dataset, "backbone": backbone, "weights": "none", **{name: options[name] for name in names}}
    check_task(task)
    settings = make_settings(dataset, backbone, options)
    check_file(file)
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        try:
            source, images = train(task, settings, progress.update)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted: the same command goes on from the last checkpoint") from None
    path = write(source, file)
    facts = summary(source, settings, path, images)
    if out.json:
        out.print_json(facts)
        return
    out.print(summary_text(facts), str(path))


def make_settings(dataset: str, backbone: str, options: dict[str, Any]) -> PretrainSettings:
    """Returns the settings of the training, without torch.

    Raises:
        UsageError: An option is wrong, or belongs to another scheme.
    """
    from nbt.models.backbone_spec import parse_backbone
    from nbt.settings.pretrain import default_pretrain_settings

    scheme = options["scheme"]
    foreign = _EPISODE_OPTIONS if scheme == "iid" else _IID_OPTIONS
    for name in foreign:
        if options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is no option of --scheme {scheme}")
    given = {name: options[name] for name in ("zap_scale", "zap_fraction", "lr", *_IID_OPTIONS, *_EPISODE_OPTIONS)}
    spec = parse_backbone(backbone)
    digits = dataset == "digits"
    return default_pretrain_settings(scheme, spec.name, digits=digits, zap_period=options["zap_every"], **given)


def check_file(file: str | None) -> None:
    """Checks `--out`.

    Raises:
        UsageError: The name is none of a weights file, or it cannot be written.
    """
    if file is None:
        return
    if not file.endswith(".safetensors"):
        raise UsageError(f"--out {file}: the name of a weights file ends in .safetensors")
    check_writable_file("--out", file)


def train(task: dict[str, Any], settings: PretrainSettings, progress: Any) -> tuple[PretrainedSource, int]:
    """Loads the images and trains; returns the source, and the number of its images."""
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
        seed=task["seed"],
        progress=progress,
    )
    return pretrain(images, spec, settings, task["seed"], progress=progress), len(images)


def write(source: PretrainedSource, file: str | None) -> Path:
    """Writes the weights file, and returns its path."""
    from nbt.training.pretrain.source_cache import export_weights

    path = source.recipe.path.with_suffix(".weights.safetensors") if file is None else Path(file)
    export_weights(path, source.state, {"recipe": source.recipe.to_dict()})
    return path


def summary(source: PretrainedSource, settings: PretrainSettings, path: Path, images: int) -> dict[str, Any]:
    """Returns what was trained, in JSON types; accuracy 0 ... 1, seconds 0 where it was in the cache."""
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
    """Returns one line on what was trained."""
    period = facts["zap_period"]
    rounds, unit = (facts["epochs"], "epoch") if facts["scheme"] == "iid" else (facts["episodes"], "episode")
    zaps = f"zapped every {period} {unit}s" if period > 1 else f"zapped every {unit}" if period else "not zapped"
    done = "was in the cache" if facts["cached"] else f"{facts['seconds']:.0f} s"
    return (
        f"{facts['backbone']} at {facts['image_size']} px, {facts['scheme']}, {zaps}: {rounds} {unit}s on "
        f"{facts['images']} images of {facts['classes']} classes, {percent(facts['accuracy'])} of them right ({done})"
    )
