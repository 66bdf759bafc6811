"""The options of `nbt search`, made from the declarations of `SearchConfig`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import click
from click.core import ParameterSource

from nbt.cli.options.checks import check_experience, pair_backbones_with_weights
from nbt.cli.options.common import PARAMETER_NAMES, REPEATED_BACKBONES, Function, config_option
from nbt.errors import UsageError
from nbt.search_config import REQUIRED, SearchConfig, option_fields
from nbt.settings.candidate import Checks
from nbt.task.options import check_candidates, check_source_data, check_weights


def search_config_options(function: Function) -> Function:
    """Adds an option for each field of `SearchConfig`, and `--config`; `read_config` returns their values."""
    for name in reversed(option_fields()):
        changes = {"help": f"{option_fields()[name].help}  [required]"} if name in REQUIRED else {}
        function = config_option(name, **changes, **REPEATED_BACKBONES.get(name, {}))(function)
    help_text = "YAML file of options; options of the command line override it."
    return click.option("--config", "config_file", metavar="FILE", show_default="none", help=help_text)(function)


def read_config(ctx: click.Context) -> SearchConfig:
    """Returns the configuration of a command line with the options of `search_config_options`.

    Raises:
        UsageError: The configuration file or a value is wrong, or the dataset or the budget is missing.
    """
    file = ctx.params["config_file"]
    given = {
        name: ctx.params[PARAMETER_NAMES.get(name, name)]
        for name in option_fields()
        if ctx.get_parameter_source(PARAMETER_NAMES.get(name, name)) is ParameterSource.COMMANDLINE
    }
    values = {} if file is None else SearchConfig.load(file, _file_checks(given)).to_dict()
    repeated = _backbones(given.pop("backbone", ()), given.pop("weights", ()), values.get("backbone"))
    if "backbones" in repeated.keys() & given.keys():
        raise UsageError("--backbones lists backbones with their weights: leave out --backbone")
    given |= repeated
    if "backbones" in given:
        check_candidates(given["backbones"])  # before only their values are kept, without lines
        values = {name: value for name, value in values.items() if name not in ("backbone", "weights")}
    elif "backbone" in given:
        values.pop("backbones", None)
    return SearchConfig.from_options({**values, **given}).check_complete()


def _file_checks(given: Collection[str]) -> Checks:
    """Returns further checks of options by name, so that errors in a configuration file name its line.

    Args:
        given: Options of the command line, which override those of the file: these are not checked.
    """
    from nbt.data.catalog import dataset_names
    from nbt.data.resolve import check_exists
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import parse_teachers
    from nbt.report.study.checks.registry import check_ignored
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.study_names import check_study_name

    overridden = {*given, *(("backbone", "weights") if "backbones" in given else ())}
    checks: Checks = {
        "dataset": lambda dataset: dataset in dataset_names() or check_exists(dataset),
        "backbone": parse_backbone,
        "weights": check_weights,
        "backbones": check_candidates,
        "teacher": parse_teachers,
        "source_data": check_source_data,
        "space": Space.load,
        "study": check_study_name,
        "experience": check_experience,
        "ignore": lambda codes: check_ignored(option_fields()["ignore"].check("ignore", codes)),
    }
    return {name: check for name, check in checks.items() if name not in overridden}


def _backbones(backbones: Sequence[str], weights: Sequence[str], before: str | None) -> dict[str, Any]:
    """Returns the options that repeated `--backbone` and `--weights` stand for.

    Args:
        backbones: Backbones of the command line.
        weights: Weights of the command line.
        before: Backbone of the configuration file, or None.

    Raises:
        UsageError: The number of weights does not match the number of backbones.
    """
    pairs = pair_backbones_with_weights(backbones or ([before] if before else []), weights)
    if len(pairs) > 1:
        return {"backbones": pairs}
    values = {"backbone": backbones, "weights": weights}
    return {name: value[0] for name, value in values.items() if value}
