"""Options of `nbt continual`, their checks per scenario and method, and the recipes that follow from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from nbt.cli.options.common import (
    AT_LEAST_ONE,
    Function,
    Number,
    WholeNumber,
    WholeNumberIn,
    choice_option,
    config_option,
    given_parameters,
    workers_option,
)
from nbt.errors import UsageError, nearest
from nbt.search_config import WEIGHTS_HELP
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

_CLASS_STREAM = "stream"
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
# Option -> field of the recipe.
_RECIPE_FIELDS = {
    "curvature": "curvature",
    "penalty": "penalty_strength",
    "epochs": "epochs",
    "batch_size": "batch_size",
}
# Option -> values of `TransferSettings.method` that it applies to.
_METHODS_OF_OPTION = {
    "curvature": ("dlcft",),
    "factors": ("dlcft",),
    "vectors": ("dlcft",),
    "penalty": ("dlcft", "ewc"),
    "memory": ("dlcft", "ewc"),
    "target_scale": ("dlcft", "finetune", "joint"),
}


def parse_size(text: str) -> int:
    """Returns a size in bytes: "2G" and "2 GiB" are 2 * 2**30, "1000" is 1000.

    Raises:
        UsageError: The text is not a size.
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
    choice_option("--scenario", (_CLASS_STREAM, *SCENARIOS), required=True, help="Kind of stream; see above."),
    config_option("dataset", required=True),
    config_option("data_dir"),
    config_option("backbone", help="Architecture of the weights, such as 'conv3(width=256)'; see nbt backbones."),
    config_option("weights", help=f"{WEIGHTS_HELP[:-1]}; see nbt pretrain."),
    config_option("image_size"),
    config_option("resize"),
    config_option(
        "classes",
        show_default="all; stream: 600, or all if fewer",
        help="Use only the first N classes. Stream: draw N classes per run.",
    ),
    click.option(
        "--lr",
        metavar="RATE",
        type=Number(),
        show_default="that of the method; stream: best of a sweep",
        help="Learning rate of the body; that of the head keeps its ratio to it. Stream: learning rate of Adam.",
    ),
    click.option(
        "--epochs",
        metavar="N",
        type=AT_LEAST_ONE,
        show_default="12; stream: 10",
        help="Epochs per task. Stream: epochs of --protocol standard.",
    ),
    click.option(
        "--batch-size",
        metavar="N",
        type=AT_LEAST_ONE,
        show_default="32",
        help="Images per step. Stream: only with --protocol standard.",
    ),
    config_option("seed", help="Seed of task order, split and draws."),
)
_TASK_STREAM_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--method",
        "methods",
        metavar="|".join(METHODS),
        multiple=True,
        callback=_check_methods,
        show_default="dlcft",
        help="Method against forgetting. Repeat the option to compare several.",
    ),
    click.option(
        "--tasks",
        metavar="N",
        type=WholeNumberIn(min=2),
        show_default="5, or as many as the classes allow",
        help="Number of tasks.",
    ),
    click.option(
        "--seeds",
        metavar="N",
        type=AT_LEAST_ONE,
        default=1,
        show_default=True,
        help="Streams per method, each with its own seed, task order and split.",
    ),
    config_option("shots"),
    click.option(
        "--settings",
        "file",
        metavar="FILE",
        show_default="none",
        help="Recipe in YAML. It replaces the defaults of method and recipe; options override it.",
    ),
    choice_option("--curvature", CURVATURES, show_default="kfac", help="Curvature of dlcft."),
    click.option(
        "--penalty",
        metavar="F",
        type=Number(),
        show_default="dlcft: 1; ewc: 10",
        help="Factor of the penalty of dlcft and ewc.",
    ),
    click.option(
        "--target-scale",
        metavar="F",
        type=Number(),
        show_default="dlcft: 5, with class 15; others: 0",
        help="Scale of the targets of the squared error; 0 selects cross-entropy.",
    ),
    choice_option(
        "--factors",
        KFAC_FACTOR_MODES,
        show_default="keep",
        help="K-FAC factors of past tasks: one pair per task (keep) or their average (merge).",
    ),
    choice_option(
        "--head",
        HEAD_INITS,
        show_default="random for --scenario class, else fitted",
        help="Head to linearise around: a ridge regression on the first task (fitted) or a random one.",
    ),
    choice_option(
        "--vectors",
        CURVATURE_VECTORS,
        show_default="signs",
        help="Output vectors of the curvature: one random vector per image (signs) or every output (unit).",
    ),
    click.option(
        "--memory",
        metavar="SIZE",
        show_default="2G",
        help="Upper bound on the memory of the curvatures, such as 512M.",
    ),
    config_option("out"),
    workers_option,
    config_option("tracking_uri"),
    click.option(
        "--export",
        metavar="DIR",
        show_default="none",
        help="Folder for the model after the last task of a single stream, see nbt predict; not with --scenario task.",
    ),
    click.option("--fresh", is_flag=True, help="Delete the stored results of these streams and start again."),
)
_CLASS_STREAM_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    choice_option(
        "--protocol", PROTOCOLS, default="continual", show_default=True, help="Stream: how the images are presented."
    ),
    choice_option(
        "--train-layers", TRAIN_LAYERS, default="all", show_default=True, help="Stream: layers that Adam trains."
    ),
    click.option(
        "--skip-classes",
        metavar="N",
        type=WholeNumber(),
        default=0,
        show_default=True,
        help="Stream: leave out the first N classes of the dataset.",
    ),
    click.option(
        "--train",
        metavar="N",
        type=AT_LEAST_ONE,
        default=15,
        show_default=True,
        help="Stream: training images per class.",
    ),
    click.option(
        "--test", metavar="N", type=AT_LEAST_ONE, default=5, show_default=True, help="Stream: test images per class."
    ),
    click.option(
        "--draws",
        metavar="N",
        type=AT_LEAST_ONE,
        default=10,
        show_default=True,
        help="Stream: runs, each on its own draw of classes and images.",
    ),
    click.option(
        "--sweep-draws",
        metavar="N",
        type=AT_LEAST_ONE,
        default=2,
        show_default=True,
        help="Stream: runs per learning rate of the sweep.",
    ),
)


def continual_options(function: Function) -> Function:
    """Adds the options of all scenarios; `check_options` rejects those of other scenarios."""
    for option in reversed((*_COMMON, *_TASK_STREAM_OPTIONS, *_CLASS_STREAM_OPTIONS)):
        function = option(function)
    return function


def _option_names(options: Sequence[Callable[[Any], Any]]) -> frozenset[str]:
    @click.command()
    def holder() -> None: ...

    for option in options:
        option(holder)
    return frozenset(str(param.name) for param in holder.params)


def check_options(ctx: click.Context, scenario: str) -> None:
    """Rejects options of other scenarios.

    Raises:
        UsageError: Such an option was given.
    """
    is_class_stream = scenario == _CLASS_STREAM
    rejected = _option_names(_TASK_STREAM_OPTIONS if is_class_stream else _CLASS_STREAM_OPTIONS)
    valid_for = "--scenario " + ", ".join(SCENARIOS) if is_class_stream else f"--scenario {_CLASS_STREAM}"
    for name, param in given_parameters(ctx).items():
        if name in rejected:
            raise UsageError(f"{param.opts[0]} is an option of {valid_for}")


def recipes_from_options(options: Mapping[str, Any]) -> dict[str, TransferSettings]:
    """Returns the recipe of every requested method, without importing torch.

    A recipe is the default recipe, or that of the file, with the overrides of its method in `METHODS`. The method of
    the file itself keeps the values of the file.

    Args:
        options: Values of the options of `nbt continual`.

    Raises:
        UsageError: The file or an option is invalid, or an option applies to none of the methods.
    """
    base = None if options["file"] is None else TransferSettings.load(options["file"])
    names = options["methods"] or (("dlcft",) if base is None else (base.stream.method,))
    recipes = {name: _recipe_of_method(name, options["scenario"], base) for name in names}
    _check_method_options(options, recipes)
    changes = {field: options[name] for name, field in _RECIPE_FIELDS.items() if options[name] is not None}
    recipes = {name: _with_learning_rate(recipe.replace(**changes), options["lr"]) for name, recipe in recipes.items()}
    return _with_target_scale(recipes, options["target_scale"])


def _recipe_of_method(name: str, scenario: str, base: TransferSettings | None) -> TransferSettings:
    if base is None:
        return TransferSettings(**method_overrides(name, scenario))
    if name == base.stream.method:
        return base
    # EWC is defined for the original network and for cross-entropy.
    plain = {"linearized": False, "target_scale": 0.0} if name == "ewc" else {}
    return base.replace(**plain, **method_overrides(name, scenario))


def _with_learning_rate(recipe: TransferSettings, rate: float | None) -> TransferSettings:
    """Returns the recipe with a learning rate of the body; the ratio of the head's rate to it stays."""
    if rate is None:
        return recipe
    if not 0.0 < rate < math.inf:
        raise UsageError(f"--lr {rate:g}: give a rate above 0")
    return recipe.replace(body_lr=rate, head_lr=rate * (recipe.head_lr / recipe.body_lr))


def _with_target_scale(recipes: dict[str, TransferSettings], scale: float | None) -> dict[str, TransferSettings]:
    """Sets the target scale of the methods with a squared error, or of all methods where none has one."""
    if scale is None:
        return recipes
    squared = {name for name, recipe in recipes.items() if recipe.target_scale > 0.0} or set(recipes)
    return {name: recipe.replace(target_scale=scale) if name in squared else recipe for name, recipe in recipes.items()}


def _check_method_options(options: Mapping[str, Any], recipes: Mapping[str, TransferSettings]) -> None:
    """Rejects an option that applies to none of the methods."""
    requested = {recipe.stream.method for recipe in recipes.values()}
    for name, methods in _METHODS_OF_OPTION.items():
        if options[name] is not None and requested.isdisjoint(methods):
            raise UsageError(f"--{name.replace('_', '-')} is an option of --method {', '.join(methods)}")
    linearized = any(recipe.linearized or recipe.stream.method == "dlcft" for recipe in recipes.values())
    if options["head"] is not None and not linearized:
        raise UsageError("--head is an option of --method dlcft, and of settings that are linearized")


def stream_settings_from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given fields of `ContinualSettings`, except for scenario, recipe and number of tasks.

    Args:
        options: Values of the options of `nbt continual`.

    Raises:
        UsageError: `--memory` is not a size.
    """
    fields = {name: options[name] for name in ("factors", "head", "vectors") if options[name] is not None}
    if options["memory"] is not None:
        fields["memory_bytes"] = parse_size(options["memory"])
    return fields
