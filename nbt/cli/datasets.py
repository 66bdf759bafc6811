"""`nbt datasets`: lists the datasets that are known by name."""

from __future__ import annotations

import dataclasses

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command


@click.command(cls=Command)
def command(out: Output) -> None:
    """List the datasets that are known by name.

    Other datasets are given by path: a folder with one subfolder per class, a folder with train/val/test subfolders of
    that kind, or a CSV file with the columns path,label[,split].
    """
    from nbt.data.catalog import dataset_names, dataset_spec

    specs = [dataset_spec(name) for name in dataset_names()]
    if out.json:
        out.print_json([dataclasses.asdict(spec) for spec in specs])
        return
    rows = [
        {
            "name": spec.name,
            "classes": spec.classes,
            "images": spec.images,
            "description": f"{spec.title}: {spec.description}",
        }
        for spec in specs
    ]
    out.print_rows(rows, right_aligned=["classes", "images"], empty_text="none")
