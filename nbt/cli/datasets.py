"""`nbt datasets`: the datasets known by name."""

from __future__ import annotations

import dataclasses

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command


@click.command(cls=Command)
def command(out: Output) -> None:
    """List the datasets that are known by name.

    Folders of class folders, train/val/test folders of such, and CSV files of path,label[,split] need no name.
    """
    from nbt.data.catalog import dataset_names, dataset_spec

    specs = [dataset_spec(name) for name in dataset_names()]
    if out.json:
        out.print_json([dataclasses.asdict(spec) for spec in specs])
        return
    rows = [
        {"name": spec.name, "classes": spec.classes, "images": spec.images, "what": f"{spec.title}: {spec.description}"}
        for spec in specs
    ]
    out.print_rows(rows, right=["classes", "images"], none="none")
