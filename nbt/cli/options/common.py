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
    """A command whose function receives an `Output` as `out`, configured by the options `-v`, `-q` and `--json`.

    Args:
        *arguments: Arguments of `click.Command`.
        prints_results: Whether the command has the option `--json`.
        **attributes: Keyword arguments of `click.Command`.
    """

    def __init__(self, *arguments: Any, prints_results: bool = True, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        if prints_results:
            help_text = "Print one JSON document to stdout; logs and progress go to stderr."
            self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=help_text))
        self.params.append(click.Option(["-v", "--verbose"], count=True, help="Log more and show tracebacks."))
        self.params.append(click.Option(["-q", "--quiet"], is_flag=True, help="Hide progress and warnings."))

    def invoke(self, ctx: click.Context) -> Any:
        """Configures the output and calls the function of the command."""
        verbose, quiet = ctx.params.pop("verbose"), ctx.params.pop("quiet")
        if verbose and quiet:
            raise click.UsageError("-v and -q exclude each other", ctx)
        out = ctx.ensure_object(Output)
        out.configure(as_json=ctx.params.pop("as_json", False), verbosity=-1 if quiet else verbose)
        ctx.params["out"] = out
        return super().invoke(ctx)


def choice_option(name: str, choices: tuple[str, ...], **attributes: Any) -> Callable[[Function], Function]:
    """Returns an option with a fixed set of values; the error for any other value suggests the closest ones."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise click.BadParameter(f"{value!r} is not a choice; {nearest(value, choices)}", ctx, param)
        return value

    return click.option(name, metavar="|".join(choices), callback=check, **attributes)


_BACKBONE_HELP = "Architecture, such as 'mobilenet_v2(width_mult=0.35)'; see nbt backbones."
_WEIGHTS_HELP = "Pretrained weights: those of the backbone (default), random ones (none), or a file."
_DATA = (
    click.option("--dataset", required=True, metavar="NAME|FOLDER|CSV", help="Target dataset; see nbt datasets."),
    click.option(
        "--data-dir",
        metavar="DIR",
        show_default="downloaded where possible",
        help="Folder that already holds a dataset known by name.",
    ),
)
_BACKBONE = (
    click.option("--backbone", metavar="NAME", show_default="the dataset's backbone", help=_BACKBONE_HELP),
    click.option("--weights", metavar="default|none|FILE", default="default", show_default=True, help=_WEIGHTS_HELP),
)
_BACKBONES = (
    click.option(
        "--backbone",
        metavar="NAME",
        multiple=True,
        show_default="the dataset's backbone",
        help=f"{_BACKBONE_HELP} Repeat the option to compare several.",
    ),
    click.option(
        "--weights",
        metavar="default|none|FILE",
        multiple=True,
        show_default="default",
        help=f"{_WEIGHTS_HELP} Give it once for all backbones, or once per backbone.",
    ),
)
_IMAGES = (
    click.option(
        "--image-size",
        metavar="PIXELS",
        type=int,
        show_default="that of dataset and backbone",
        help="Side length of the images.",
    ),
    click.option("--classes", metavar="N", type=int, show_default="all", help="Use only the first N classes."),
    click.option("--shots", metavar="N", type=int, show_default="all", help="Use only N labelled images per class."),
)


def task_options(function: Function) -> Function:
    """Adds the options that define a task; `nbt.cli.options.checks.check_task` checks their values."""
    return _add((*_DATA, *_BACKBONE, *_IMAGES), function)


def comparison_options(function: Function) -> Function:
    """Adds the options of `task_options`, but `--backbone` and `--weights` may be repeated and are tuples."""
    return _add((*_DATA, *_BACKBONES, *_IMAGES), function)


def _add(options: tuple[Callable[[Function], Function], ...], function: Function) -> Function:
    for option in reversed(options):
        function = option(function)
    return function


def teacher_option(function: Function) -> Function:
    """Adds `--teacher`; `nbt.cli.options.checks.check_task` checks its value."""
    help_text = "Backbone whose weights trials may inject into theirs; see nbt inject."
    return click.option("--teacher", metavar="BACKBONE[=FILE]", show_default="none", help=help_text)(function)


def storage_option(function: Function) -> Function:
    """Adds `--storage`; `nbt.cli.options.checks.check_study` checks its value."""
    default = "SQLite file under .nbt/"
    return click.option("--storage", metavar="URL", show_default=default, help="Database of the studies.")(function)


def tracking_option(function: Function) -> Function:
    """Adds `--tracking-uri`."""
    default = "SQLite file under .nbt/"
    return click.option("--tracking-uri", metavar="URI", show_default=default, help="MLflow tracking store.")(function)


def experience_option(function: Function) -> Function:
    """Adds `--experience`; `nbt.cli.options.checks.check_experience` checks its value."""
    default = "tables shipped with nbt"
    help_text = "Folder of recorded tables of other tasks; see nbt record."
    return click.option("--experience", metavar="DIR", show_default=default, help=help_text)(function)
