"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from nbt.cli.display.output import Output
from nbt.errors import nearest

Function = TypeVar("Function", bound=Callable[..., Any])

AT_LEAST_ONE = click.IntRange(min=1)
SEED = click.IntRange(min=0)


class Command(click.Command):
    """A command whose function gets an `Output` as `out`, made from its options `-v`, `-q` and `--json`."""

    def __init__(self, *arguments: Any, prints_results: bool = True, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        if prints_results:
            help_text = "Print one JSON document to stdout; logs and progress go to stderr."
            self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=help_text))
        self.params.append(click.Option(["-v", "--verbose"], count=True, help="Log more; show tracebacks."))
        self.params.append(click.Option(["-q", "--quiet"], is_flag=True, help="No progress, no warnings."))

    def invoke(self, ctx: click.Context) -> Any:
        """Sets up the output and calls the function."""
        verbose, quiet = ctx.params.pop("verbose"), ctx.params.pop("quiet")
        if verbose and quiet:
            raise click.UsageError("-v and -q exclude each other", ctx)
        out = ctx.ensure_object(Output)
        out.configure(as_json=ctx.params.pop("as_json", False), verbosity=-1 if quiet else verbose)
        ctx.params["out"] = out
        return super().invoke(ctx)


def choice_option(name: str, choices: tuple[str, ...], **attributes: Any) -> Callable[[Function], Function]:
    """Returns an option that takes one of a few words, and names the nearest where it gets another."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise click.BadParameter(f"{value!r} is not a choice; {nearest(value, choices)}", ctx, param)
        return value

    return click.option(name, metavar="|".join(choices), callback=check, **attributes)


_BACKBONE_HELP = "E.g. 'mobilenet_v2(width_mult=0.35)'; see nbt backbones."
_WEIGHTS_HELP = "Pretrained weights."
_DATA = (
    click.option("--dataset", required=True, metavar="NAME|FOLDER|CSV", help="What to transfer to; see nbt datasets."),
    click.option("--data-dir", metavar="DIR", help="Where a dataset known by name already is."),
)
_BACKBONE = (
    click.option("--backbone", metavar="NAME", help=_BACKBONE_HELP),
    click.option("--weights", metavar="default|none|FILE", default="default", show_default=True, help=_WEIGHTS_HELP),
)
_BACKBONES = (
    click.option("--backbone", metavar="NAME", multiple=True, help=f"{_BACKBONE_HELP} Several are compared."),
    click.option(
        "--weights",
        metavar="default|none|FILE",
        multiple=True,
        help=f"{_WEIGHTS_HELP} Once for all backbones, or once for each.",
    ),
)
_IMAGES = (
    click.option("--image-size", metavar="PIXELS", type=int, help="Side of the images."),
    click.option("--classes", metavar="N", type=int, help="Use the first N classes only."),
    click.option("--shots", metavar="N", type=int, help="Use N labelled images a class only."),
)


def task_options(function: Function) -> Function:
    """Adds the options that say what is transferred to what; `nbt.cli.options.checks.check_task` checks them."""
    return _add((*_DATA, *_BACKBONE, *_IMAGES), function)


def comparison_options(function: Function) -> Function:
    """Adds the options of `task_options`, with `--backbone` and `--weights` any number of times (tuples)."""
    return _add((*_DATA, *_BACKBONES, *_IMAGES), function)


def _add(options: tuple[Callable[[Function], Function], ...], function: Function) -> Function:
    for option in reversed(options):
        function = option(function)
    return function


def teacher_option(function: Function) -> Function:
    """Adds `--teacher`; `nbt.cli.options.checks.check_task` checks it."""
    help_text = "Whose weights may be injected; see nbt inject."
    return click.option("--teacher", metavar="BACKBONE[=FILE]", help=help_text)(function)


def storage_option(function: Function) -> Function:
    """Adds `--storage`."""
    help_text = "Database of the studies; SQLite under .nbt/ when not given."
    return click.option("--storage", metavar="URL", help=help_text)(function)


def tracking_option(function: Function) -> Function:
    """Adds `--tracking-uri`."""
    help_text = "MLflow's store; SQLite under .nbt/ when not given."
    return click.option("--tracking-uri", metavar="URI", help=help_text)(function)


def experience_option(function: Function) -> Function:
    """Adds `--experience`; `nbt.cli.options.checks.check_experience` checks it."""
    help_text = "Folder of recorded tables; those that come with nbt when not given."
    return click.option("--experience", metavar="DIR", help=help_text)(function)
