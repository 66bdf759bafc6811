"""`nbt sync`: writes a study's MLflow runs again."""

from __future__ import annotations

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_study
from nbt.cli.options.common import Command, storage_option, tracking_option


@click.command(cls=Command)
@click.argument("study")
@storage_option
@tracking_option
@click.option("--out", "folder", metavar="DIR", default="reports", show_default=True, help="Where reports are.")
def command(out: Output, study: str, storage: str | None, tracking_uri: str | None, folder: str) -> None:
    """Bring a study's MLflow runs up to date from the storage.

    Missing runs are written, with the report from --out where there is one; nothing is doubled.
    """
    check_study(study, storage)
    from nbt import api

    counts = api.sync(study, storage, tracking_uri, folder)
    if out.json:
        out.print_json(counts)
    else:
        out.print(f"{study}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
