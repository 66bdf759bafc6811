"""`nbt check`: checks a dataset."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command, config_option
from nbt.errors import NbtError
from nbt.task.options import check_task_options

if TYPE_CHECKING:
    from nbt.api import CheckedDataset


@click.command(cls=Command)
@config_option("dataset", required=True)
@config_option("data_dir")
@config_option("image_size", show_default="that of the dataset, else 224")
@config_option("classes")
@config_option("resize")
@config_option("ignore")
def command(out: Output, dataset: str, ignore: tuple[str, ...], **options: Any) -> int:
    """Check the images of a dataset.

    The checks say how folders are read, which files are passed over or unreadable, which classes are missing, small or
    unequal, and more; docs/checks.md explains their codes. The exit code is 1 if a check of the severity error failed.
    The same checks are made before every search.
    """
    try:
        read = _read(out, dataset, ",".join(ignore), options)
    except NbtError as error:
        if out.json:
            out.print_json({"dataset": dataset, "error": str(error), "checks": []})
        raise
    if out.json:
        facts = {"dataset": dataset, "images": read.images, "classes": len(read.classes), "parts": read.parts}
        results = [result.to_dict() for result in read.checks]
        out.print_json({**facts, "class_names": read.classes, "official_parts": read.official, "checks": results})
    else:
        from nbt.cli.display.check_lines import check_lines

        out.print(_summary(read), *check_lines(read.checks))
    return int(any(result.is_failed and result.severity == "error" for result in read.checks))


def _read(out: Output, dataset: str, ignore: str, options: dict[str, Any]) -> CheckedDataset:
    check_task_options(dataset, **options)
    from nbt.display.progress import Progress

    if not out.verbose:
        logging.getLogger("nbt").setLevel(logging.ERROR)  # what is left out is in the results
    with Progress(out.progress_mode) as progress:
        from nbt import api

        return api.check_dataset(dataset, ignore=ignore, progress=progress.update, **options)


def _summary(read: CheckedDataset) -> str:
    """Returns what was read, e.g. "60 images of 3 classes: 36 training, 12 validation, 12 test (test official)"."""
    parts = ", ".join(f"{images:,} {name}" for name, images in read.parts.items())
    official = f"{', '.join(read.official)} official" if read.official else "all drawn"
    return f"{read.images:,} images of {len(read.classes):,} classes: {parts} ({official})"
