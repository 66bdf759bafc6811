"""`nbt backbones`: lists the backbones that are known by name."""

from __future__ import annotations

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command


@click.command(cls=Command)
@click.option(
    "--filter",
    "text",
    metavar="TEXT",
    default="",
    show_default="all names",
    help="List only names that contain TEXT.",
)
def command(out: Output, text: str) -> None:
    """List the backbones.

    A name may be followed by keyword arguments of its torchvision builder, as in 'mobilenet_v2(width_mult=0.35)'.
    """
    from nbt.models.backbone_spec import backbone_names

    names = [name for name in backbone_names() if text.lower() in name]
    if out.json:
        out.print_json(names)
    else:
        out.print_rows([{"name": name} for name in names], empty_text=f"no backbone has {text!r} in its name")
