"""Options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nbt.cli.display.output import Output
from nbt.errors import nearest
from nbt.option import AUTO, Option
from nbt.search_config import BACKBONE_HELP, WEIGHTS_HELP, default_value, flag_of, option_fields

Function = TypeVar("Function", bound=Callable[..., Any])

# Parameters of commands whose options have another name: `out` is the `Output` of the command.
PARAMETER_NAMES = {"out": "folder"}


class WholeNumber(click.types.IntParamType):
    """A whole number."""

    name = "whole number"


class WholeNumberIn(click.IntRange):
    """A whole number with bounds."""

    name = "whole number"


class Number(click.types.FloatParamType):
    """A number."""

    name = "number"


AT_LEAST_ONE = WholeNumberIn(min=1)


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments.

        Raises:
            click.UsageError: They are wrong, or one of them is an empty text, such as that of an unset variable.
        """
        try:
            rest = super().parse_args(ctx, list(args))
        except click.UsageError as error:
            given, surplus, _ = self.make_parser(ctx).parse_args(list(args))
            has_dataset = any(param.opts == ["--dataset"] for param in self.params)
            if has_dataset and "dataset" not in given and len(surplus) == 1 and surplus[0].strip():
                message = f"unexpected argument {surplus[0]}; for a dataset, write --dataset {shlex.quote(surplus[0])}"
                raise click.UsageError(message, ctx) from error
            raise
        for name, param in given_parameters(ctx).items():
            values = ctx.params[name]
            for value in values if isinstance(values, tuple) else (values,):
                if isinstance(value, str) and not value.strip():
                    what = f"expected {param.metavar}, " if isinstance(param, click.Option) and param.metavar else ""
                    raise click.BadParameter(f"{what}got an empty text", ctx, param)
        return rest

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


def config_option(name: str, **attributes: Any) -> Callable[[Function], Function]:
    """Returns the command-line option of a field of `SearchConfig`, made from its declaration.

    Args:
        name: Name of the field.
        **attributes: Attributes of `click.option` that differ from the declaration.
    """
    option, default = option_fields()[name], default_value(name)
    names = [flag_of(name), PARAMETER_NAMES.get(name, name)]
    facts: dict[str, Any] = {
        "help": option.help,
        "show_default": option.when_none or default is not None,
        # For click, a default of None is a value, and a required option would not be missing.
        **({} if default is None else {"default": default}),
        **attributes,
    }
    if option.kind == "flag":
        return click.option(*names, is_flag=True, flag_value=not default, **{**facts, "show_default": False})
    if option.kind == "choice":
        return choice_option(names[0], option.choices, **facts)
    multiple = {"multiple": True} if option.kind in ("codes", "teachers") else {}
    return click.option(*names, metavar=option.metavar, type=_type_of(option), **{**multiple, **facts})


def _type_of(option: Option) -> Any:
    if option.kind == "whole":
        return WholeNumber() if option.low is None else WholeNumberIn(min=option.low)
    return {"number": Number(), "gpus": _NumberOrText(), "workers": _WholeOrAuto()}.get(option.kind, str)


class _NumberOrText(click.ParamType[float | str]):
    """A number, or a text that is checked later."""

    name = "number or text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Returns the value as a number if it is one."""
        try:
            return float(value)
        except ValueError:
            return str(value)


class _WholeOrAuto(click.ParamType[int | str]):
    """A whole number of 1 or more, or "auto"."""

    name = "whole number or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Returns "auto", or the value as a number."""
        if value == AUTO:
            return AUTO
        try:
            return AT_LEAST_ONE.convert(int(value), param, ctx)
        except ValueError:
            self.fail(f"{value!r} is neither {AUTO} nor a whole number", param, ctx)


_TASK = ("dataset", "data_dir", "backbone", "weights", "image_size", "classes", "shots", "resize")
REPEATED_BACKBONES: dict[str, dict[str, Any]] = {
    "backbone": {
        "multiple": True,
        "help": f"{BACKBONE_HELP} Repeat the option to compare several.",
        "show_default": "the dataset's backbone",
    },
    "weights": {
        "multiple": True,
        "help": f"{WEIGHTS_HELP} Give it once for all backbones, or once per backbone.",
        "default": (),
        "show_default": "default",
    },
}


def task_options(function: Function, **attributes: Mapping[str, Any]) -> Function:
    """Adds the options that define a task; `nbt.cli.options.checks.check_task` checks their values.

    Args:
        function: The function of a command.
        **attributes: Attributes of single options that differ from those of `nbt search`, by name of the option.
    """
    for name in reversed(_TASK):
        function = config_option(name, **{"required": name == "dataset", **attributes.get(name, {})})(function)
    return function


def comparison_options(function: Function) -> Function:
    """Adds the options of `task_options`, but `--backbone` and `--weights` may be repeated and are tuples."""
    return task_options(function, **REPEATED_BACKBONES)


def workers_option(function: Function) -> Function:
    """Adds `--workers` to a command that runs several trainings on this machine."""
    help_text = "Runs at a time; auto: one per usable CPU core, on GPUs as many as their memory allows."
    return config_option("workers", help=help_text)(function)


def given_parameters(ctx: click.Context) -> dict[str, click.Parameter]:
    """Returns the parameters that were given on the command line, by name."""
    return {
        str(param.name): param
        for param in ctx.command.params
        if ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    }
