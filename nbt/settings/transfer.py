"""The settings of a trial: their declarations, and conversion from and to files.

A setting is declared once, here or by a technique (`nbt.settings.technique`); search spaces, encodings, tables, reports
and MLflow read the declaration. In files, tables and search spaces all settings have flat names. In Python, those of
the source of the weights and of a stream of tasks are in groups: `settings.head_lr`, `settings.source.init`,
`settings.stream.method`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nbt.errors import UsageError, errors_in
from nbt.object_html import short_repr, table_html
from nbt.settings.declaration import SETTINGS, Setting, declared_settings, documented, setting_field
from nbt.settings.rule import FieldRule
from nbt.yaml_loader import dump_yaml_mapping, parse_yaml_mapping

OPTIMIZERS = ("sgd", "adamw")
AUGMENTATIONS = ("none", "crop", "color", "rand")
LAYER_LR_KNOTS = ("input", "middle", "top")
ZAP_SCALES = ("per_row", "as_released")
CLASS_WEIGHTS = ("none", "balanced")
FEATURE_NORMS = ("none", "batch", "target")
INITS = ("pretrained", "inject", "kaiming")
PRETRAIN_SCHEMES = ("iid", "asb", "meta-asb")
METHODS = ("finetune", "ewc", "dlcft", "probe", "joint")
CURVATURES = ("kfac", "diagonal", "exact")

_FRACTION = FieldRule(0.0, 1.0)
_COUNT = FieldRule(0, 1_000_000, integer=True)
_LEARNING_RATE = FieldRule(above=0.0, high=1e3)


class _Group:
    """Base of the dataclasses of settings."""

    def __post_init__(self) -> None:
        for item in declared_settings(type(self)):
            object.__setattr__(self, item.name, item.rule.check(item.name, getattr(self, item.name)))

    def _copy_with(self, changed: Mapping[str, Any]) -> Self:
        """Returns a copy with changed fields, which are already checked."""
        copy = object.__new__(type(self))
        vars(copy).update(vars(self))
        vars(copy).update(changed)
        return copy


@documented
@dataclass(frozen=True, kw_only=True)
class SourceSettings(_Group):
    """The weights that a trial starts from."""

    init: str = setting_field(
        "pretrained",
        FieldRule(choices=INITS),
        "Initial weights of the units: those of the task, those of a teacher, injected with TLI, or Kaiming-normal "
        "random ones.",
        technique="injection",
        label="{}",
    )
    teacher: str = setting_field(
        "",
        FieldRule(text=True),
        "Model whose weights are injected.",
        details='"BACKBONE" (the library\'s weights) or "BACKBONE=FILE" (a state dict).',
        technique="injection",
    )
    blend: float = setting_field(
        0.75,
        _FRACTION,
        "Weight of the centre crop in an injected tensor of another shape; the rest is the resized tensor.",
        technique="injection",
    )
    pretrain_scheme: str = setting_field(
        "iid",
        FieldRule(choices=PRETRAIN_SCHEMES),
        "Training scheme of a source model that nbt trains.",
        technique="pretraining",
        label="source {}",
    )
    pretrain_zap_period: int = setting_field(
        0,
        _COUNT,
        'Epochs ("iid") or episodes (other schemes) between zaps in the training of the source model; 0 disables them.',
        technique="pretraining",
        label="source zap {}",
    )


@documented
@dataclass(frozen=True, kw_only=True)
class StreamSettings(_Group):
    """The method against forgetting in a stream of tasks."""

    method: str = setting_field(
        "finetune",
        FieldRule(choices=METHODS),
        "Method against forgetting in a stream of tasks.",
        details='"finetune" is none, "probe" an incremental ridge regression on frozen features, "joint" a training on '
        "all images so far.",
        technique="continual",
        label="{}",
    )
    curvature: str = setting_field(
        "kfac",
        FieldRule(choices=CURVATURES),
        "Approximation of the curvature in the penalty of dlcft.",
        technique="continual",
    )
    penalty_strength: float = setting_field(
        1.0,
        FieldRule(0.0, 1e9),
        "Factor of the penalty of ewc and dlcft; 1 is the derived penalty.",
        technique="continual",
    )


@documented
@dataclass(frozen=True, kw_only=True, init=False)
class TransferSettings(_Group):
    """The settings of a trial. The default values are the default recipe: plain fine-tuning of all units.

    Depths are shares of the backbone's units, counted from the input, so that one recipe applies to every backbone.

    Args:
        **values: Settings by their flat names, also those of the groups and of registered techniques:
            `TransferSettings(head_lr=0.1, init="inject", teacher="resnet18")`; or the groups themselves as `source` and
            `stream`. Settings that are missing have their defaults.

    Raises:
        UsageError: A value breaks its rule, or values cannot be combined.
        TypeError: A name is unknown.

    Examples:
        >>> import nbt
        >>> settings = nbt.TransferSettings(frozen_depth=0.5, head_lr=0.05)
        >>> settings
        TransferSettings(frozen_depth=0.5, head_lr=0.05)
        >>> nbt.TransferSettings.from_yaml(settings.to_yaml()) == settings
        True
    """

    transfer_depth: float = setting_field(
        1.0,
        _FRACTION,
        "Share of units, from the input, that keep the pretrained weights; the rest is re-initialised.",
    )
    frozen_depth: float = setting_field(
        0.0,
        _FRACTION,
        "Share of units, from the input, that do not train, at most transfer_depth.",
        details="Their BatchNorm statistics do not change either.",
    )
    frozen_top: float = setting_field(
        0.0,
        _FRACTION,
        "Share of units, from the top, that do not train, except re-initialised ones; the head always trains.",
        details="With frozen_depth, a window of units trains (Lee et al., arXiv 2210.11466).",
        technique="surgical fine-tuning",
        label="frozen top {:.2f}",
        since="0.2",
    )
    head_lr: float = setting_field(0.01, _LEARNING_RATE, "Peak learning rate of the head.")
    body_lr: float = setting_field(0.01, _LEARNING_RATE, "Peak learning rate of the units, before layer_lr_shape.")
    layer_lr_shape: tuple[float, float, float] = setting_field(
        (0.0, 0.0, 0.0),
        FieldRule(-6.0, 6.0, length=len(LAYER_LR_KNOTS)),
        "log10 of the factor of body_lr, interpolated over the units between the knots.",
        details="A straight line is a geometric decay.",
        knots=LAYER_LR_KNOTS,
    )
    decay_strength: float = setting_field(
        1e-4,
        FieldRule(0.0, 1e3),
        "Total weight decay of weight matrices and filters.",
        details="Biases, normalisation parameters and other vectors are never decayed.",
    )
    sp_mix: float = setting_field(
        0.0,
        _FRACTION,
        "Share of the decay that pulls to the pretrained weights (L2-SP); the rest pulls to zero (L2).",
        technique="L2-SP",
        label="sp {:.2f}",
    )
    sp_depth: float = setting_field(
        1.0,
        _FRACTION,
        "Share of units, from the input, to which L2-SP applies; units above it have L2 alone.",
        technique="L2-SP",
    )
    optimizer: str = setting_field(
        "sgd",
        FieldRule(choices=OPTIMIZERS),
        "SGD with Nesterov momentum, or AdamW, which needs about a tenth of the learning rates.",
        label="{}",
    )
    momentum: float = setting_field(0.9, FieldRule(0.0, 0.9999), "Nesterov momentum of SGD, or beta1 of AdamW.")
    batch_size: int = setting_field(32, FieldRule(1, 2**20, integer=True), "Images per step.")
    label_smoothing: float = setting_field(
        0.0, FieldRule(0.0, 0.99), "Share of the label's weight that is spread over all classes."
    )
    class_weights: str = setting_field(
        "none",
        FieldRule(choices=CLASS_WEIGHTS),
        "Weights of the classes in the loss; balanced ones are inversely proportional to the numbers of images.",
        details="As in scikit-learn, the weight of a class is n / (C n_c); the mean loss is a weighted mean.",
        label="{} classes",
        since="0.2",
    )
    augmentation: str = setting_field(
        "crop",
        FieldRule(choices=AUGMENTATIONS),
        "Augmentation policy; each one includes those before it.",
        details='"crop" is a random resized crop and a horizontal flip, "color" adds colour jitter, "rand" two '
        "operations as in RandAugment.",
    )
    mixup: float = setting_field(
        0.0,
        FieldRule(0.0, 100.0),
        "Alpha of mixup's Beta distribution; 0 disables mixup.",
        details="Mixup applies to the input of the first unit that trains: images, or frozen features (manifold "
        "mixup).",
        label="mixup {:.2g}",
    )
    ema: float = setting_field(
        0.0,
        FieldRule(0.0, 0.99999),
        "Decay per step of the moving average of the weights; 0 disables it.",
        details="The average is evaluated and kept.",
    )
    warmup: float = setting_field(
        0.1,
        _FRACTION,
        "Share of all steps in which the learning rates rise linearly; then they fall to 0 along a cosine.",
    )
    views: int = setting_field(
        4,
        FieldRule(1, 10_000, integer=True),
        "Augmented views per image for which the features of the frozen units are cached.",
    )
    zap_period: int = setting_field(
        0,
        _COUNT,
        "Epochs between resets of the head's rows; 0 disables zapping.",
        details="A zap takes place at the start of an epoch, never of the first. A period of `epochs` or more would "
        "therefore have no effect: `nbt.fine_tune` and `nbt train` refuse it, and `repair` sets it to 0.",
        technique="zapping",
        label="zap {}",
    )
    zap_fraction: float = setting_field(
        1.0,
        FieldRule(above=0.0, high=1.0),
        "Share of the classes whose rows a zap resets.",
        details="Every zap draws the classes again.",
        technique="zapping",
    )
    zap_scale: str = setting_field(
        "per_row",
        FieldRule(choices=ZAP_SCALES),
        "Standard deviation of new weights, computed per row or, as in the paper's code, for a whole head.",
        details="sqrt(2 / D) per row; sqrt(2 / (K D)) for a whole head of K classes.",
        technique="zapping",
    )
    zap_until: float = setting_field(
        1.0,
        FieldRule(above=0.0, high=1.0),
        "Share of the steps after which no zap takes place, because a reset head needs time to train.",
        technique="zapping",
        label="until {:.2f}",
        since="0.2",
    )
    zap_warmup: float = setting_field(
        0.0,
        _FRACTION,
        "Share of zap_period, after each zap, in which the learning rate of the new rows rises linearly.",
        technique="zapping",
        since="0.2",
    )
    head_scale: float = setting_field(
        1.0,
        _FRACTION,
        "Factor of the head's initial random weights; 0 is FAST's zero head.",
        details="With 0 the first gradient of the backbone is exactly 0.",
        technique="FAST",
        label="head {:.2g}",
    )
    feature_norm: str = setting_field(
        "none",
        FieldRule(choices=FEATURE_NORMS),
        "Standardisation of the features before the head.",
        details='"batch" uses the statistics of the batch, running statistics in evaluation; "target" those of the '
        "training images at the initial weights.",
        technique="FAST",
        label="norm {}",
    )
    stall: float = setting_field(
        0.0,
        _FRACTION,
        "Share of the steps, from the first, in which only the head trains.",
        details="The backbone does not change: no decay, no update of BatchNorm statistics, no update of its optimiser "
        "state.",
        technique="FAST",
        label="stall {:.2f}",
    )
    head_lr_multiplier: float = setting_field(
        1.0, _LEARNING_RATE, "Factor of head_lr during the stall.", technique="FAST"
    )
    source: SourceSettings = SourceSettings()
    linearized: bool = setting_field(
        False,
        FieldRule(flag=True),
        "Whether the network's first-order expansion around the initial weights is trained, as in DLCFT.",
        details="BatchNorm and dropout are then in evaluation mode, see `nbt.transfer.linearize`.",
        technique="linearization",
        label="linearized",
    )
    target_scale: float = setting_field(
        0.0,
        FieldRule(0.0, 1e3),
        "Scale of the targets of squared error; 0 is cross-entropy.",
        details="a of the squared error `1/2 sum_c (f_c - a [c = y])^2`.",
        technique="linearization",
        label="squared error {:g}",
    )
    stream: StreamSettings = StreamSettings()
    backbone: str = setting_field(
        "",
        FieldRule(text=True),
        'Backbone of the trial in a search over several backbones; "" is the backbone of the task.',
        technique="backbones",
        label="{}",
        since="0.2",
    )
    epochs: int = setting_field(12, FieldRule(1, 1_000_000, integer=True), "Number of epochs.")
    extensions: tuple[tuple[str, Any], ...] = ()

    def __init__(self, **values: Any) -> None:
        vars(self).update(_DEFAULTS)
        vars(self).update(self._changes(values))
        self._check_combination()

    def __repr__(self) -> str:
        changed = [f"{name}={value!r}" for name, value, default in self._values() if value != default]
        return short_repr("TransferSettings", changed)

    def _repr_html_(self) -> str:
        changed = [(name, value, f"default {default}") for name, value, default in self._values() if value != default]
        note = f"{len(SETTINGS) - len(changed)} {'other ' if changed else ''}settings have their defaults"
        return table_html("TransferSettings", changed, note)

    def _values(self) -> list[tuple[str, Any, Any]]:
        """Returns name, value and default of every setting."""
        return [(name, self.value(name), setting.default) for name, setting in SETTINGS.items()]

    def __getstate__(self) -> dict[str, Any]:
        modules = [SETTINGS.module(name) for name, _ in self.extensions]
        return {**vars(self), **({"modules": modules} if modules else {})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # As for classes, the receiving process imports the module that registers a technique.
        for module in state.pop("modules", ()):
            importlib.import_module(module)
        vars(self).update(state)

    if not TYPE_CHECKING:  # a type checker reports unknown attributes itself

        def __getattr__(self, name: str) -> Any:
            group = _STORED[name].group if name in _STORED else ""
            hint = f"; it is settings.{group}.{name}" if group else f"; use settings.value({name!r})"
            known = name in SETTINGS
            raise AttributeError(f"TransferSettings has no attribute {name!r}{hint if known else ''}")

    def _check_combination(self) -> None:
        if self.feature_norm == "batch" and self.batch_size == 1:
            raise UsageError("feature_norm: batch statistics need a batch_size of 2 or more; use feature_norm: target")

    def replace(self, **changes: Any) -> TransferSettings:
        """Returns a copy with changed settings, which are checked; returns `self` if no value changes.

        Args:
            **changes: As in the constructor.

        Raises:
            TypeError: A setting is unknown.
            UsageError: A value breaks its rule.
        """
        changed = self._changes(changes)
        if not changed:
            return self
        # A proposal of a sampler repairs hundreds of settings, so unchanged values are not checked again.
        copy = self._copy_with(changed)
        copy._check_combination()
        return copy

    def replace_valid(self, values: Mapping[str, Any]) -> TransferSettings:
        """Returns a copy with changed settings that follow their rules and are of canonical types, see `are_valid`.

        Raises:
            UsageError: Values cannot be combined.
        """
        copy = self._copy_with(values)
        copy._check_combination()
        return copy

    @staticmethod
    def are_valid(name: str, values: Iterable[Any]) -> bool:
        """Returns whether `replace_valid` accepts values of a setting; false for every setting of a group."""
        return name in _STORED and not _STORED[name].group and all(map(_STORED[name].rule.fits, values))

    def _changes(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields that change with the values of some settings, checked."""
        changed: dict[str, Any] = {}
        for name, value in values.items():
            setting = _STORED.get(name)
            if setting is None:
                self._change_other_field(name, value, changed)
                continue
            group = setting.group
            holder = (changed.get(group) or getattr(self, group)) if group else self
            before = getattr(holder, name)
            if value is before or (type(value) is type(before) and value == before):
                continue
            checked = value if setting.rule.fits(value) else setting.rule.check(name, value)
            if group:
                changed[group] = holder._copy_with({name: checked})
            else:
                changed[name] = checked
        return changed

    def _change_other_field(self, name: str, value: Any, changed: dict[str, Any]) -> None:
        """Adds to `changed` a whole group, the extensions, or the setting of a registered technique."""
        if name in _NESTED:
            if type(value) is not type(_NESTED[name]) or name in changed:
                raise TypeError(f"{name}: expected {type(_NESTED[name]).__name__}, before the settings in it")
            changed[name] = value
        elif name in SETTINGS:
            extensions = {**dict(changed.get("extensions", self.extensions))}
            extensions[name] = SETTINGS[name].rule.check(name, value)
            order = {name: number for number, name in enumerate(SETTINGS.extensions)}
            kept = [(name, value) for name, value in extensions.items() if value != SETTINGS[name].default]
            changed["extensions"] = tuple(sorted(kept, key=lambda item: order[item[0]]))
        else:
            raise TypeError(SETTINGS.unknown(name))

    def is_zap_due(self, epoch: int) -> bool:
        """Returns whether epoch `epoch` (1 ... `epochs`) starts with a zap; the first epoch never does."""
        within = epoch - 1 <= self.zap_until * self.epochs + 1e-9
        return within and self.zap_period > 0 and epoch != 1 and (epoch - 1) % self.zap_period == 0

    def value(self, name: str) -> Any:
        """Returns the value of a setting by its flat name, also of a setting of a group or of a registered technique.

        Raises:
            KeyError: The setting is unknown.
        """
        setting = _STORED.get(name)
        if setting is None:
            return dict(self.extensions).get(name, SETTINGS[name].default)
        return getattr(getattr(self, setting.group) if setting.group else self, name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings by flat name in JSON types, in the order of `SETTINGS`; `from_dict` reads them.

        A setting that was added after version 0.1, or that a registered technique brings, is left out while it is
        neutral. So it changes neither the hashes of settings that were stored without it nor the checkpoints of running
        trials.
        """
        values = {name: self.value(name) for name, setting in _STORED.items()}
        values = {name: value for name, value in values.items() if not _is_new_and_neutral(_STORED[name], value)}
        values |= dict(self.extensions)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """Returns what stored hashes and checkpoints know of the settings: `to_dict`."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransferSettings:
        """Builds settings from a mapping of flat names; settings that are missing have their defaults.

        Raises:
            UsageError: A name is unknown (the message suggests similar names), or a value breaks its rule.
        """
        for name in values:
            if name not in _STORED and name not in SETTINGS:
                raise UsageError(SETTINGS.unknown(name))
        return cls(**values)

    def to_yaml(self) -> str:
        """Returns the settings as a YAML mapping; `from_yaml` reads it."""
        return dump_yaml_mapping(self.to_dict())

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "settings") -> TransferSettings:
        """Reads settings from YAML text.

        Args:
            text: A YAML mapping of flat names to values.
            source: Name of the text in error messages, usually its path.

        Raises:
            UsageError: The text is not YAML or not a mapping, a name is unknown, or a value breaks its rule.
        """
        values = parse_yaml_mapping(text, source=source)
        with errors_in(source):
            return cls.from_dict(values)

    @classmethod
    def load(cls, path: str | Path) -> TransferSettings:
        """Reads a settings file, such as a report's `recommended.yaml`.

        Raises:
            UsageError: The file cannot be read as text, or its content is invalid.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot read settings ({error})") from error
        return cls.from_yaml(text, source=str(path))


def _is_new_and_neutral(setting: Setting, value: Any) -> bool:
    return setting.since != "" and value == setting.default


SETTINGS.declare(TransferSettings)

_STORED = dict(SETTINGS)
_DEFAULTS: dict[str, Any] = {item.name: item.default for item in dataclasses.fields(TransferSettings)}
_NESTED = {name: value for name, value in _DEFAULTS.items() if name not in _STORED}

# `help` and editors show the flat names that the constructor accepts.
TransferSettings.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default) for item in SETTINGS.values()]
)
