"""Options of `nbt continual`: which belong to which scenario and method, and the recipes that they make."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from nbt.cli.options.common import AT_LEAST_ONE, SEED, Function, choice_option, tracking_option
from nbt.errors import UsageError, nearest
from nbt.settings import CURVATURES, TransferSettings
from nbt.settings.class_stream import PROTOCOLS, TRAIN_LAYERS
from nbt.settings.continual import (
    CURVATURE_VECTORS,
    HEAD_INITS,
    KFAC_FACTOR_MODES,
    METHODS,
    SCENARIOS,
    method_overrides,
)

__all__ = ["SCENARIOS", "check_options", "continual_options", "recipes_from_options", "stream_settings_from_options"]

_CLASS_STREAM = "stream"
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
# Option -> field of the recipe, and whose it is, as the recipes call methods.
_RECIPE_FIELDS = {
    "curvature": "curvature",
    "penalty": "penalty_strength",
    "epochs": "epochs",
    "batch_size": "batch_size",
}
_METHODS_OF_OPTION = {
    "curvature": ("dlcft",),
    "factors": ("dlcft",),
    "vectors": ("dlcft",),
    "penalty": ("dlcft", "ewc"),
    "memory": ("dlcft", "ewc"),
    "target_scale": ("dlcft", "finetune", "joint"),
}


def parse_size(text: str) -> int:
    """Returns a number of bytes: "2G" and "2 GiB" are 2 * 2**30, "1000" is itself.

    Raises:
        UsageError: It is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--memory {text!r}: give a size such as 512M or 2G")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def _check_methods(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(value):
        if name not in METHODS:
            raise click.BadParameter(f"{name!r} is not a choice; {nearest(name, METHODS)}", ctx, param)
        if name in value[:index]:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
    return value


_COMMON: tuple[Callable[[Any], Any], ...] = (
    choice_option("--scenario", (_CLASS_STREAM, *SCENARIOS), required=True, help="See above."),
    click.option("--dataset", required=True, metavar="NAME|FOLDER|CSV", help="What to transfer to; see nbt datasets."),
    click.option("--data-dir", metavar="DIR", help="Where a dataset known by name already is."),
    click.option("--backbone", metavar="NAME", help="Of the weights, such as 'conv3(width=256)'; see nbt backbones."),
    click.option(
        "--weights", metavar="default|none|FILE", default="default", show_default=True, help="See nbt pretrain."
    ),
    click.option("--image-size", metavar="PIXELS", type=int, help="Side of the images."),
    click.option("--classes", metavar="N", type=int, help="The first N (stream: of a draw, 600 or all if fewer)."),
    click.option("--lr", metavar="RATE", type=float, help="Of the body, the head's in proportion (stream: Adam's)."),
    click.option("--epochs", metavar="N", type=AT_LEAST_ONE, help="Of a task: 12; of standard: 10."),
    click.option("--batch-size", metavar="N", type=AT_LEAST_ONE, help="Images a step: 32; of stream's standard alone."),
    click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of order, split, draws."),
)
_TASK_STREAM_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--method",
        "methods",
        metavar="|".join(METHODS),
        multiple=True,
        callback=_check_methods,
        help="Against forgetting, dlcft when not given. Several are compared.",
    ),
    click.option("--tasks", metavar="N", type=click.IntRange(min=2), help="Length; 5, or as many as classes give."),
    click.option("--seeds", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Orders and seeds."),
    click.option("--shots", metavar="N", type=int, help="Use N labelled images a class only."),
    click.option("--settings", "file", metavar="FILE", help="Recipe as YAML; options override it."),
    choice_option("--curvature", CURVATURES, help="Of dlcft; kfac when not given."),
    click.option("--penalty", metavar="F", type=float, help="What multiplies the penalty of dlcft and ewc."),
    click.option("--target-scale", metavar="F", type=float, help="Of squared error; 0 is cross-entropy."),
    choice_option("--factors", KFAC_FACTOR_MODES, help="Of past tasks' K-FAC; keep when not given."),
    choice_option("--head", HEAD_INITS, help="To linearise around; fitted when not given."),
    choice_option("--vectors", CURVATURE_VECTORS, help="Of the curvature; signs when not given."),
    click.option("--memory", metavar="SIZE", help="Bound on the curvatures, such as 512M; 2G when not given."),
    click.option("--out", "folder", metavar="DIR", default="reports", show_default=True, help="Where reports go."),
    tracking_option,
    click.option("--fresh", is_flag=True, help="Forget what is kept of these streams, and start over."),
)
_CLASS_STREAM_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    choice_option("--protocol", PROTOCOLS, default="continual", show_default=True, help="Stream: order of the images."),
    choice_option("--train-layers", TRAIN_LAYERS, default="all", show_default=True, help="Stream: what Adam trains."),
    click.option("--skip-classes", metavar="N", type=int, default=0, help="Stream: leave out the first N."),
    click.option(
        "--train", metavar="N", type=AT_LEAST_ONE, default=15, show_default=True, help="Stream: images a class."
    ),
    click.option(
        "--test", metavar="N", type=AT_LEAST_ONE, default=5, show_default=True, help="Stream: images a class."
    ),
    click.option("--draws", metavar="N", type=AT_LEAST_ONE, default=10, show_default=True, help="Stream: runs."),
    click.option(
        "--sweep-draws",
        metavar="N",
        type=AT_LEAST_ONE,
        default=2,
        show_default=True,
        help="Stream: runs for each rate.",
    ),
)


def continual_options(function: Function) -> Function:
    """Adds the options of all scenarios; `check_options` refuses those of another."""
    for option in reversed((*_COMMON, *_TASK_STREAM_OPTIONS, *_CLASS_STREAM_OPTIONS)):
        function = option(function)
    return function


def _option_names(options: Sequence[Callable[[Any], Any]]) -> frozenset[str]:
    @click.command()
    def bare() -> None: ...

    for option in options:
        option(bare)
    return frozenset(str(param.name) for param in bare.params)


def given_options(ctx: click.Context) -> dict[str, click.Parameter]:
    """Returns the options that were written on the command line, by the names of their values."""
    return {
        str(param.name): param
        for param in ctx.command.params
        if ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    }


def check_options(ctx: click.Context, scenario: str) -> None:
    """Refuses options of another scenario.

    Raises:
        UsageError: One was given.
    """
    of_stream = scenario == _CLASS_STREAM
    foreign = _option_names(_TASK_STREAM_OPTIONS if of_stream else _CLASS_STREAM_OPTIONS)
    whose = "--scenario " + ", ".join(SCENARIOS) if of_stream else f"--scenario {_CLASS_STREAM}"
    for name, param in given_options(ctx).items():
        if name in foreign:
            raise UsageError(f"{param.opts[0]} is an option of {whose}")


def recipes_from_options(options: Mapping[str, Any]) -> dict[str, TransferSettings]:
    """Returns the recipe of every method that was asked for, without torch.

    A method is what `METHODS` makes of the default recipe, or of the file's; what the file itself says of its own
    method stays.

    Raises:
        UsageError: The file or an option is wrong, or an option is of none of the methods.
    """
    base = None if options["file"] is None else TransferSettings.load(options["file"])
    names = options["methods"] or (("dlcft",) if base is None else (base.method,))
    recipes = {name: _recipe_of_method(name, options["scenario"], base) for name in names}
    _check_method_options(options, recipes)
    changes = {field: options[name] for name, field in _RECIPE_FIELDS.items() if options[name] is not None}
    recipes = {name: _with_learning_rate(recipe.replace(**changes), options["lr"]) for name, recipe in recipes.items()}
    return _with_target_scale(recipes, options["target_scale"])


def _recipe_of_method(name: str, scenario: str, base: TransferSettings | None) -> TransferSettings:
    if base is None:
        return TransferSettings(**method_overrides(name, scenario))
    if name == base.method:
        return base
    # EWC is defined for the network itself and cross-entropy.
    plain = {"linearized": False, "target_scale": 0.0} if name == "ewc" else {}
    return base.replace(**plain, **method_overrides(name, scenario))


def _with_learning_rate(recipe: TransferSettings, rate: float | None) -> TransferSettings:
    """Gives the body a rate; the head's stays as many times as high."""
    if rate is None:
        return recipe
    if not 0.0 < rate < math.inf:
        raise UsageError(f"--lr {rate:g}: give a rate above 0")
    return recipe.replace(body_lr=rate, head_lr=rate * (recipe.head_lr / recipe.body_lr))


def _with_target_scale(recipes: dict[str, TransferSettings], scale: float | None) -> dict[str, TransferSettings]:
    """Gives a target scale to the methods that have squared error, where none has to all."""
    if scale is None:
        return recipes
    squared = {name for name, recipe in recipes.items() if recipe.target_scale > 0.0} or set(recipes)
    return {name: recipe.replace(target_scale=scale) if name in squared else recipe for name, recipe in recipes.items()}


def _check_method_options(options: Mapping[str, Any], recipes: Mapping[str, TransferSettings]) -> None:
    """Refuses an option that none of the methods has."""
    asked = {recipe.method for recipe in recipes.values()}
    for name, methods in _METHODS_OF_OPTION.items():
        if options[name] is not None and asked.isdisjoint(methods):
            raise UsageError(f"--{name.replace('_', '-')} is an option of --method {', '.join(methods)}")
    linearized = any(recipe.linearized or recipe.method == "dlcft" for recipe in recipes.values())
    if options["head"] is not None and not linearized:
        raise UsageError("--head is an option of --method dlcft, and of settings that are linearized")


def stream_settings_from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `ContinualSettings` that were given, but for scenario, recipe and length.

    Raises:
        UsageError: The size of the memory is none.
    """
    fields = {name: options[name] for name in ("factors", "head", "vectors") if options[name] is not None}
    if options["memory"] is not None:
        fields["memory_bytes"] = parse_size(options["memory"])
    return fields
