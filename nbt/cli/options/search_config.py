"""The options of `nbt search`, made from the declarations of `SearchConfig`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from nbt.cli.options.common import Function, choice_option
from nbt.config import Option, SearchConfig, default_value, flag_of, option_fields

# `out` is the `Output` that every command gets.
_PARAMETER_OF = {"out": "report_folder"}


def search_config_options(function: Function) -> Function:
    """Adds an option for each field of `SearchConfig`, and `--config`; `read_config` returns what they say."""
    for name, option in reversed(option_fields().items()):
        function = _click_option(name, option)(function)
    help_text = "YAML file of options; options that are given on the command line override it."
    return click.option("--config", "config_file", metavar="FILE", help=help_text)(function)


def read_config(ctx: click.Context) -> SearchConfig:
    """Returns the configuration of a command line, and takes its options out of the parameters of the command.

    Raises:
        UsageError: The configuration file is wrong, a value is wrong, or dataset or budget are missing.
    """
    file = ctx.params.pop("config_file")
    values = {} if file is None else SearchConfig.load(file).to_dict()
    for name in option_fields():
        parameter = _PARAMETER_OF.get(name, name)
        given = ctx.get_parameter_source(parameter) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
        value = ctx.params.pop(parameter)
        if given:
            values[name] = value
    return SearchConfig.from_options(values).check_complete()


def _click_option(name: str, option: Option) -> Callable[[Function], Function]:
    default = default_value(name)
    names = [flag_of(name), _PARAMETER_OF.get(name, name)]
    help_text = option.help
    shown: Any = {"default": default, "show_default": option.when_none or default is not None}
    match option.kind:
        case "flag":
            return click.option(*names, is_flag=True, flag_value=not default, default=default, help=help_text)
        case "choice":
            return choice_option(names[0], option.choices, help=help_text, **shown)
        case "whole":
            shown["type"] = click.IntRange(min=option.low)
        case "number":
            shown["type"] = click.FLOAT
        case "gpus":
            shown["type"] = _NumberOrText()
    return click.option(*names, metavar=option.metavar, help=help_text, **shown)


class _NumberOrText(click.ParamType[float | str]):
    """A number where the text is one; other text is checked by what uses it."""

    name = "number or text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Returns the value as a number, or unchanged."""
        try:
            return float(value)
        except ValueError:
            return str(value)
