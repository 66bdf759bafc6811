"""`nbt report`: rewrites the report of a study."""

from __future__ import annotations

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_study
from nbt.cli.options.common import Command, config_option
from nbt.paths import check_writable_folder


@click.command(cls=Command)
@click.argument("study")
@config_option("storage")
@config_option("out")
@config_option("ignore", show_default="that of the search")
@config_option("images")
def command(out: Output, study: str, storage: str | None, folder: str, ignore: tuple[str, ...], images: bool) -> None:
    """Rewrite the report of a study from the storage."""
    check_study(study, storage)
    check_writable_folder("--out", folder)
    from nbt import api

    path = api.report(study, storage, folder, ignore=ignore or None, images=images)
    if out.json:
        out.print_json({"study": study, "report": path})
    else:
        out.print(str(path))
