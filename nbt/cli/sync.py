"""`nbt sync`: updates the MLflow runs of a study or stream."""

from __future__ import annotations

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_study
from nbt.cli.options.common import Command, config_option


@click.command(cls=Command)
@click.argument("study")
@config_option("storage")
@config_option("tracking_uri")
@config_option("out")
def command(out: Output, study: str, storage: str | None, tracking_uri: str | None, folder: str) -> None:
    """Update the MLflow runs of a study or a stream from the storage.

    STUDY is the name of a study, or of a stream of nbt continual (a folder in .nbt/streams/). Missing and outdated runs
    are written, with the report and the model in --out if they are there. No run is written twice.
    """
    check_study(study, storage)
    from nbt import api

    counts = api.sync(study, storage, tracking_uri, folder)
    if out.json:
        out.print_json(counts)
    else:
        out.print(f"{study}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
