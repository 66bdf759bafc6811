"""`nbt studies`: lists the studies in the storage."""

from __future__ import annotations

import click

from nbt.cli.display.output import Output, to_strict
from nbt.cli.options.checks import check_study
from nbt.cli.options.common import Command, config_option


@click.command(cls=Command)
@config_option("storage")
def command(out: Output, storage: str | None) -> None:
    """List the studies in the storage."""
    check_study(None, storage)
    from nbt import api
    from nbt.cli.display.study_list import study_lines

    studies = api.studies(storage)
    if out.json:
        out.print_json([to_strict(study) for study in studies])
    else:
        out.print(*study_lines(studies))
