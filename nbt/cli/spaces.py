"""`nbt spaces`: lists the search spaces and their dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command

if TYPE_CHECKING:
    from nbt.tuning.space.space import Space


@click.command(cls=Command)
@click.argument("name", required=False, metavar="[NAME|FILE]")
def command(out: Output, name: str | None) -> None:
    """List the search spaces, or the dimensions of one of them."""
    from nbt.tuning.space.space import Space, space_names

    if name is None:
        rows = [_row(Space.load(name)) for name in space_names()]
        out.print_json(rows) if out.json else out.print_rows(rows, right_aligned=["dimensions"], empty_text="no spaces")
        return
    space = Space.load(name)
    if out.json:
        out.print_json({**_row(space), "dimensions": space.to_table()})
    else:
        out.print(f"{space.name}: {space.description}", "")
        out.print_rows(space.to_table(), empty_text="no dimensions")


def _row(space: Space) -> dict[str, str | int]:
    return {"name": space.name, "dimensions": len(space.dimensions), "description": space.description}
