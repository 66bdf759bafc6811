"""`nbt doctor`: checks installation and machine."""

from __future__ import annotations

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command, config_option

_STYLES = {"ok": "green", "warning": "bold yellow", "problem": "bold red"}


@click.command(cls=Command)
@config_option("storage")
@config_option("tracking_uri")
@config_option("ray_address", show_default="RAY_ADDRESS, or a Ray on this machine")
@config_option("out")
def command(out: Output, storage: str | None, tracking_uri: str | None, ray_address: str | None, folder: str) -> int:
    """Check installation and machine.

    The checks are of packages, cores, memory, GPUs, folders, free disk, the stores of studies and MLflow, Ray, and
    pretrained weights. The exit code is 1 if one of them is a problem.
    """
    from rich.text import Text

    from nbt.cli.display.tables import grid
    from nbt.doctor.diagnosis import PROBLEM
    from nbt.doctor.run import diagnose

    results = []
    for result in diagnose(storage=storage, tracking_uri=tracking_uri, ray_address=ray_address, out=folder):
        results.append(result)
        if not out.json:
            table = grid()
            table.add_column(width=max(map(len, _STYLES)))
            table.add_column(overflow="fold")
            text = Text(f"{result.subject}: {result.message}", overflow="fold")
            if result.advice:
                text.append(f"\n{result.advice}", style="dim")
            table.add_row(Text(result.status, style=_STYLES[result.status]), text)
            out.print(table)
    if out.json:
        out.print_json([result.to_dict() for result in results])
    return int(any(result.status == PROBLEM for result in results))
