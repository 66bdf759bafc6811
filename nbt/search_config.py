"""SearchConfig: every option of a search, declared once with `nbt.option.Option`.

The options of `nbt search`, the keyword arguments of `nbt.search`, the keys of a configuration file, the record that a
study keeps of its search, the command that a report prints and the parameters in MLflow are all made from these fields.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbt.errors import UsageError, nearest, with_python_names
from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.option import (
    AUTO,
    Option,
    check_budget,
    check_classes,
    check_final_seeds,
    check_gpus_per_trial,
    check_image_size,
    check_max_budget,
    check_ray_address,
    check_shots,
    is_auto_budget,
)
from nbt.paths import absolute_path
from nbt.settings.belief import BeliefError
from nbt.settings.candidate import Checks, parse_candidates
from nbt.settings.continual import SCENARIOS
from nbt.settings.teacher_names import parse_teacher_names
from nbt.uris import redact_uri
from nbt.yaml_loader import dump_yaml_mapping, key_lines, line_of, parse_yaml_mapping

ENGINES = ("local", "ray")
RESIZE_MODES = ("crop", "pad", "squash")
PRUNERS = ("fit", "asha", "none")

BACKBONE_HELP = "Architecture, such as 'mobilenet_v2(width_mult=0.35)'; see nbt backbones."
WEIGHTS_HELP = "Pretrained weights: those of the backbone (default), random ones (none), or a file."

DEFAULT_EPOCHS = 12
"""Epochs of a trial where neither the command nor the search space says otherwise."""

REQUIRED = ("dataset", "budget")
"""Options without which no search starts; they may be given on the command line or in a configuration file."""

_REQUIRED: Any = None
_NO_CHECKS: Checks = MappingProxyType({})


def _option(default: Any, **facts: Any) -> Any:
    return field(default=default, metadata={"option": Option(**facts)})


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Every option of a search, checked. None is "not given" wherever it is the default.

    Attributes are declared with their meaning below; `nbt search --help` prints it. `dataset` and `budget` are needed
    before a search starts, see `check_complete`.

    Raises:
        UsageError: A value is of another type, out of range, or excludes another.

    Examples:
        >>> import nbt
        >>> config = nbt.SearchConfig(dataset="digits", budget="2h", workers=2)
        >>> print(config.command())
        nbt search --dataset digits --budget 2h --workers 2
    """

    dataset: str = _option(
        _REQUIRED,
        kind="path",
        role="task",
        metavar="NAME|FOLDER|CSV",
        help="Target dataset; see nbt datasets.",
    )
    data_dir: str | None = _option(
        None,
        kind="path",
        role="task",
        metavar="DIR",
        help="Folder that already holds a dataset known by name.",
        when_none="downloaded where possible",
    )
    backbone: str | None = _option(
        None,
        kind="text",
        role="task",
        metavar="NAME",
        help=BACKBONE_HELP,
        when_none="the dataset's backbone",
    )
    weights: str = _option("default", kind="path", role="task", metavar="default|none|FILE", help=WEIGHTS_HELP)
    backbones: str | None = _option(
        None,
        kind="backbones",
        role="task",
        metavar="small|medium|large|FILE|LIST",
        help="Backbones to choose from: a shipped list, or a YAML list of name, weights, image_size, licence and text.",
        when_none="one backbone",
    )
    max_parameters: int | None = _option(
        None,
        kind="whole",
        role="search",
        metavar="N",
        help="Largest number of parameters of a backbone, without its head.",
        when_none="any",
    )
    max_latency: float | None = _option(
        None,
        kind="number",
        role="search",
        metavar="MS",
        positive=True,
        help="Longest time in milliseconds in which a backbone may classify one image, measured on this device, on a "
        "CPU with one thread.",
        when_none="any",
    )
    image_size: int | None = _option(
        None,
        kind="whole",
        role="task",
        metavar="PIXELS",
        help="Side length of the images.",
        when_none="that of dataset and backbone",
        low=None,
        rule=check_image_size,
    )
    classes: int | None = _option(
        None,
        kind="whole",
        low=None,
        role="task",
        metavar="N",
        help="Use only the first N classes.",
        rule=check_classes,
        when_none="all",
    )
    shots: int | None = _option(
        None,
        kind="whole",
        low=None,
        role="task",
        metavar="N",
        help="Use only N labelled images per class.",
        rule=check_shots,
        when_none="all",
    )
    resize: str = _option(
        "crop",
        kind="choice",
        role="task",
        choices=RESIZE_MODES,
        help="How images become square: the centre, with borders, or with another aspect ratio.",
    )
    budget: str = _option(
        _REQUIRED,
        kind="budget",
        role="search",
        metavar="N|30m|2h|auto",
        help="Cost of N trials of the default recipe, or wall-clock time; auto: until a further trial is not worth it.",
        rule=check_budget,
    )
    max_budget: str = _option(
        "100",
        kind="budget",
        role="search",
        metavar="N|30m|2h",
        help="With --budget auto: the limit.",
        rule=check_max_budget,
    )
    min_gain: float = _option(
        0.1,
        kind="number",
        role="search",
        metavar="POINTS",
        positive=True,
        help="With --budget auto: the search ends when the expected gain of a further trial falls below it.",
    )
    space: str = _option(
        "non_binary", kind="path", role="search", metavar="NAME|FILE", help="Search space; see nbt spaces."
    )
    teacher: str | None = _option(
        None,
        kind="teachers",
        role="task",
        metavar="BACKBONE[=FILE]",
        help="Backbone whose weights trials may inject into theirs, see nbt inject; repeat it to choose among several.",
        when_none="none",
    )
    source_data: str | None = _option(
        None,
        kind="path",
        role="task",
        metavar="FOLDER|CSV",
        help="Labelled images of what the weights were trained on: every trial reports how well the weights' own "
        "classifier still classifies them. The search follows --metric alone.",
        when_none="not measured",
    )
    engine: str = _option(
        "local",
        kind="choice",
        role="run",
        choices=ENGINES,
        help="Engine that runs the trials; ray copies the images to its nodes.",
    )
    workers: int | str = _option(
        AUTO,
        kind="workers",
        role="run",
        metavar="N|auto",
        help="Trials that run at a time; auto: one per usable CPU core, on GPUs as many as their memory allows, with "
        "Ray as many as the cluster has room for.",
    )
    ray_address: str | None = _option(
        None,
        kind="text",
        role="run",
        metavar="auto|HOST:PORT|ray://...",
        help="Running Ray cluster to connect to.",
        rule=check_ray_address,
        when_none="a new Ray on this machine",
    )
    gpus_per_trial: float | str | None = _option(
        None,
        kind="gpus",
        role="run",
        metavar="F|auto",
        help="With Ray: share of a GPU per trial, 0 ... 1; auto derives it from measured memory.",
        rule=check_gpus_per_trial,
        when_none="1, or an equal share if the workers outnumber the GPUs",
    )
    cpus_per_trial: float | None = _option(
        None,
        kind="number",
        role="run",
        metavar="F",
        positive=True,
        help="With Ray: CPUs per trial.",
        when_none="as many as leave room for all workers",
    )
    epochs: int | None = _option(
        None,
        kind="whole",
        role="search",
        metavar="N",
        help="Epochs of every trial; of each task with --scenario.",
        when_none=f"searched from {DEFAULT_EPOCHS // 2} to {2 * DEFAULT_EPOCHS}, or as the space says",
    )
    study: str | None = _option(
        None,
        kind="text",
        role="search",
        metavar="NAME",
        help="Name of the study.",
        when_none="derived from dataset, backbone and space",
    )
    storage: str | None = _option(
        None,
        kind="uri",
        role="run",
        metavar="URL",
        help="Database of the studies.",
        when_none="SQLite file under .nbt/",
    )
    tracking_uri: str | None = _option(
        None, kind="uri", role="run", metavar="URI", help="MLflow tracking store.", when_none="SQLite file under .nbt/"
    )
    register: str | None = _option(
        None,
        kind="text",
        role="run",
        metavar="NAME",
        help="Register the trained model in MLflow under this name.",
        when_none="not registered",
    )
    metric: str = _option(
        DEFAULT_METRIC,
        kind="choice",
        role="search",
        choices=tuple(METRICS),
        help="Metric on the validation images that the search optimises; all are reported.",
    )
    pruner: str = _option(
        "fit", kind="choice", role="search", choices=PRUNERS, help="Rule that stops unpromising trials early."
    )
    heuristics: bool = _option(
        True,
        kind="flag",
        role="search",
        flag="--no-heuristics",
        help="Propose settings with plain TPE, without priors and experience.",
    )
    beliefs: str | None = _option(
        None,
        kind="beliefs",
        role="search",
        metavar="LIST",
        help="What you expect of good settings, most easily in a configuration file; the trials decide how much it "
        "counts.",
        when_none="none",
    )
    scenario: str | None = _option(
        None,
        kind="choice",
        role="task",
        choices=SCENARIOS,
        help="Search for a stream of tasks; see nbt continual.",
        when_none="none: one task",
    )
    tasks: int | None = _option(
        None,
        kind="whole",
        low=2,
        role="task",
        metavar="N",
        help="With --scenario: number of tasks.",
        when_none="5, or as many as the classes allow",
    )
    experience: str | None = _option(
        None,
        kind="path",
        role="run",
        metavar="DIR",
        help="Folder of recorded tables of other tasks; see nbt record.",
        when_none="tables shipped with nbt",
    )
    seed: int = _option(0, kind="whole", low=0, role="search", metavar="N", help="Seed of splits, sampler and trials.")
    final_seeds: int = _option(
        5,
        kind="whole",
        low=None,
        role="run",
        metavar="N",
        help="Maximum number of folds of the final runs, 2 or more; as many are used as take, with the last training, "
        "at most half of what the trials took, but at least 3, or this maximum if it is lower.",
        rule=check_final_seeds,
    )
    ignore: str | None = _option(
        None,
        kind="codes",
        role="run",
        metavar="CODE[,CODE]",
        help="Checks of data and result to leave out, such as NBT203; may be repeated.",
        when_none="none",
    )
    images: bool = _option(
        True,
        kind="flag",
        role="run",
        flag="--no-images",
        help="Leave the images out of the report, for private data; the names of their files remain.",
    )
    out: str = _option("reports", kind="path", role="run", metavar="DIR", help="Folder of the reports.")
    fresh: bool = _option(
        False,
        kind="flag",
        role="run",
        flag="--fresh",
        help="Start a new study under another name instead of resuming.",
    )

    @with_python_names
    def __post_init__(self) -> None:
        for name, option in option_fields().items():
            value = getattr(self, name)
            if value is not None:
                shown = name if option.kind == "flag" else flag_of(name)
                object.__setattr__(self, name, option.check(shown, value))
            elif default_value(name) is not None:
                raise UsageError(f"{flag_of(name)}: expected a value, got nothing")

    @with_python_names
    def check_complete(self) -> SearchConfig:
        """Returns the configuration itself if it has all that a search cannot do without.

        A list of one backbone is the same as that backbone.

        Raises:
            UsageError: Dataset or budget are missing, or an option needs or excludes another one.
        """
        for name in REQUIRED:
            if getattr(self, name) is None:
                raise UsageError(f"missing {flag_of(name)}; see nbt search --help")
        is_guided = self.heuristics and self.scenario is None
        is_auto = is_auto_budget(self.budget)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        unused = [flag_of(name) for name in ("max_budget", "min_gain") if getattr(self, name) != defaults[name]]
        if unused and not is_auto:
            raise UsageError(f"{', '.join(unused)}: only with --budget auto")
        if is_auto and not is_guided:
            raise UsageError(
                "--budget auto needs the model of the priors, which predicts the gain: leave out --no-heuristics and "
                "--scenario, or give a number of trials or a time"
            )
        if self.source_data is not None and self.scenario is not None:
            raise UsageError("--source-data: source accuracy is measured for single tasks only: leave out --scenario")
        if self.beliefs is not None and not is_guided:
            raise UsageError("beliefs need the model of the priors: leave out --no-heuristics and --scenario")
        return self if self.backbones is None else self._check_backbones()

    def _check_backbones(self) -> SearchConfig:
        """Returns the configuration of a search over a list of backbones."""
        given = [flag_of(name) for name in ("backbone", "weights") if getattr(self, name) != default_value(name)]
        if given:
            raise UsageError(f"{', '.join(given)}: --backbones lists backbones with their weights; leave it out")
        candidates = parse_candidates(self.backbones)
        if len(candidates) == 1:
            [only] = candidates
            size = only.image_size or self.image_size
            return self.replace(backbones=None, backbone=only.name, weights=only.weights, image_size=size)
        alone = [flag_of(name) for name in ("scenario", "teacher") if getattr(self, name) is not None]
        if alone:
            raise UsageError(f"{', '.join(alone)}: only with one backbone")
        return self

    def replace(self, **changes: Any) -> SearchConfig:
        """Returns a copy with some options changed and checked.

        Raises:
            UsageError: An option is unknown (the nearest are named), or a value is wrong.
        """
        return type(self)(**{**self.to_dict(), **_known(changes)})

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from their defaults, in JSON types; `SearchConfig(**values)` reads them."""
        values = {name: getattr(self, name) for name in option_fields()}
        return {name: value for name, value in values.items() if value != default_value(name)}

    def to_record(self) -> dict[str, Any]:
        """Returns `to_dict` as it may be stored and shown: paths absolute, URIs without passwords."""
        return {name: _shown(name, value) for name, value in self.to_dict().items()}

    def to_yaml(self) -> str:
        """Returns a configuration file that `from_yaml` reads back to an equal configuration."""
        return dump_yaml_mapping(self.to_dict())

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SearchConfig:
        """Returns the configuration that keyword arguments give.

        Raises:
            UsageError: An option is unknown (the nearest are named), or a value is wrong.
        """
        return cls(**_known(options))

    @classmethod
    @with_python_names
    def from_yaml(cls, text: str, *, source: str = "configuration", checks: Checks = _NO_CHECKS) -> SearchConfig:
        """Reads a configuration file: a mapping of option names to values, with "_" or "-" in the names.

        Args:
            text: YAML.
            source: Name of the text in errors, usually its path.
            checks: Further checks of values of options, as they stand in the text.

        Raises:
            UsageError: The text is not YAML, or a key is unknown, given twice or has a wrong value; the message names
                the key and its line.
        """
        values = parse_yaml_mapping(text, source=source)
        lines = key_lines(text)
        known: dict[str, Any] = {}
        for key, value in values.items():
            where = f"{source}, line {lines.get(key, 1)}"
            try:
                [name] = _known({key.replace("-", "_"): value})
                if name in known:
                    raise UsageError(f"option {key!r} is given twice")
                known[name] = None if value is None else option_fields()[name].check(key, value)
                if value is not None and name in checks:
                    checks[name](value)
            except BeliefError as error:
                raise UsageError(f"{source}, line {line_of(text, 'dimension', error.dimension)}: {error}") from error
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from error
        return cls(**{name: value for name, value in known.items() if value is not None})

    @classmethod
    @with_python_names
    def load(cls, path: str | Path, checks: Checks = _NO_CHECKS) -> SearchConfig:
        """Reads a configuration file; see `from_yaml`.

        Raises:
            UsageError: The file cannot be read as text, or its content is wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise UsageError(f"configuration {path}: cannot be read ({reason})") from error
        return cls.from_yaml(text, source=str(path), checks=checks)

    def command_options(self, *roles: str) -> dict[str, str]:
        """Returns the options of `nbt search` that differ from their defaults, as they may be shown.

        Args:
            *roles: Only options of these roles; of all when none is given.

        Returns:
            Option to value; the value of a flag is "".
        """
        fields = option_fields()
        return {
            flag_of(name): "" if fields[name].kind == "flag" else str(value)
            for name, value in self.to_record().items()
            if not roles or fields[name].role in roles
        }

    def command_words(self, *roles: str) -> list[str]:
        """Returns `command_options` as words of a command line; the option of several teachers is repeated."""
        words: list[str] = []
        for flag, text in self.command_options(*roles).items():
            values = parse_teacher_names(text) if flag == flag_of("teacher") else (text,)
            words += [word for value in values for word in (flag, value) if word]
        return words

    def command(self) -> str:
        """Returns the command line of this search, quoted for a shell, as it may be shown."""
        return shlex.join(["nbt", "search", *self.command_words()])


def check_workers(workers: int | str) -> None:
    """Checks the option `workers` of functions that are not searches.

    Raises:
        UsageError: It is neither "auto" nor a whole number of 1 or more.
    """
    option_fields()["workers"].check("workers", workers)


def option_fields() -> dict[str, Option]:
    """Returns the declaration of every option by name, in the order of the help text."""
    return {item.name: item.metadata["option"] for item in dataclasses.fields(SearchConfig)}


def default_value(name: str) -> Any:
    """Returns the default of an option, None where it has none."""
    return SearchConfig.__dataclass_fields__[name].default


def flag_of(name: str) -> str:
    """Returns how an option is written on the command line."""
    return option_fields()[name].flag or f"--{name.replace('_', '-')}"


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    names = option_fields()
    for name in options:
        if name not in names:
            raise UsageError(f"unknown option {name!r}; {nearest(name, names)}")
    return dict(options)


def _shown(name: str, value: Any) -> Any:
    kind = option_fields()[name].kind
    if kind == "uri":
        return redact_uri(value)
    if kind == "path" and name in ("data_dir", "experience", "out"):
        return str(absolute_path(value))
    return value
