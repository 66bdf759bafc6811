"""The options of `nbt search`, made from the declarations of `SearchConfig`."""

from __future__ import annotations

import click
from click.core import ParameterSource

from nbt.cli.options.common import PARAMETER_NAMES, Function, config_option
from nbt.search_config import REQUIRED, SearchConfig, option_fields


def search_config_options(function: Function) -> Function:
    """Adds an option for each field of `SearchConfig`, and `--config`; `read_config` returns their values."""
    for name in reversed(option_fields()):
        required = {"help": f"{option_fields()[name].help}  [required]"} if name in REQUIRED else {}
        function = config_option(name, **required)(function)
    help_text = "YAML file of options; options of the command line override it."
    return click.option("--config", "config_file", metavar="FILE", show_default="none", help=help_text)(function)


def read_config(ctx: click.Context) -> SearchConfig:
    """Returns the configuration of a command line with the options of `search_config_options`.

    Raises:
        UsageError: The configuration file or a value is wrong, or the dataset or the budget is missing.
    """
    file = ctx.params["config_file"]
    values = {} if file is None else SearchConfig.load(file).to_dict()
    for name in option_fields():
        parameter = PARAMETER_NAMES.get(name, name)
        if ctx.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            values[name] = ctx.params[parameter]
    return SearchConfig.from_options(values).check_complete()
