"""The recipe of a trial: its fields, their rules, and the repair of combinations that are impossible."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nbt.errors import UsageError, nearest
from nbt.settings.identity import SINCE, identity_fields
from nbt.yaml_loader import parse_yaml_mapping

OPTIMIZERS = ("sgd", "adamw")
AUGMENTATIONS = ("none", "crop", "color", "rand")
LAYER_LR_KNOTS = ("input", "middle", "top")
ZAP_SCALES = ("per_row", "as_released")
FEATURE_NORMS = ("none", "batch", "target")
INITS = ("pretrained", "inject", "kaiming")
PRETRAIN_SCHEMES = ("iid", "asb", "meta-asb")
METHODS = ("finetune", "ewc", "dlcft", "probe", "joint")
CURVATURES = ("kfac", "diagonal", "exact")

# Target scale of DLCFT if a recipe sets none; public code uses 5 and 15.
_TARGET_SCALE = 5.0


@dataclass(frozen=True)
class FieldRule:
    """The values that a field accepts.

    Attributes:
        low: Smallest number.
        high: Largest number.
        above: Number that a value must exceed.
        choices: Texts to choose from.
        integer: Whether numbers are whole.
        length: Number of items of a tuple of numbers; 0 for a single value.
        text: Whether the value is one line of text.
        flag: Whether the value is true or false.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float | None = None
    choices: tuple[str, ...] = ()
    integer: bool = False
    length: int = 0
    text: bool = False
    flag: bool = False

    def fits(self, value: Any) -> bool:
        """Returns whether `value` is valid and of canonical type, so that `check` returns it unchanged; fast."""
        kind = type(value)
        if kind is tuple:
            return len(value) == self.length and all(type(item) is float and self._in_range(item) for item in value)
        if kind is float or kind is int:
            number = not (self.choices or self.text or self.flag or self.length)
            return number and self.integer is (kind is int) and self._in_range(value)
        if kind is str:
            return value in self.choices or (self.text and "\n" not in value)
        return kind is bool and self.flag

    def _in_range(self, number: float) -> bool:
        above = self.above is None or number > self.above
        return self.low <= number <= self.high and above and math.isfinite(number)

    def check(self, name: str, value: Any) -> Any:
        """Returns `value` in its canonical type.

        Raises:
            UsageError: The value has the wrong type, is not finite or is out of range; the message names the field and
                the rule.
        """
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                raise UsageError(f"{name}: {value!r} is not one of {', '.join(self.choices)}")
            return value
        if self.text:
            if not isinstance(value, str) or "\n" in value:
                raise UsageError(f"{name}: expected one line of text, got {value!r}")
            return value
        if self.flag:
            # Rows of pandas tables hold NumPy booleans.
            value = value.item() if type(value).__name__ == "bool" and hasattr(value, "item") else value
            if not isinstance(value, bool):
                raise UsageError(f"{name}: expected true or false, got {value!r}")
            return value
        if self.length:
            if not isinstance(value, list | tuple) or len(value) != self.length:
                raise UsageError(f"{name}: expected a list of {self.length} numbers, got {value!r}")
            return tuple(dataclasses.replace(self, length=0).check(name, item) for item in value)
        return self._check_number(name, value)

    def _check_number(self, name: str, value: Any) -> float | int:
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise UsageError(f"{name}: expected a number, got {value!r}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise UsageError(f"{name}: {reprlib.repr(value)} is not finite")
        if self.integer and number != int(number):
            raise UsageError(f"{name}: expected a whole number, got {value!r}")
        if not self._in_range(number):
            raise UsageError(f"{name}: {value!r} is outside {self.describe()}")
        return int(number) if self.integer else number

    def describe(self) -> str:
        """Returns the rule as text, such as "0 ... 1" or "above 0"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.text:
            return "one line of text"
        if self.flag:
            return "true or false"
        if self.above is not None:
            return f"above {self.above:g}" + (f", up to {self.high:g}" if math.isfinite(self.high) else "")
        if math.isfinite(self.high):
            return f"{self.low:g} ... {self.high:g}"
        return f"{self.low:g} or more"


_FRACTION = FieldRule(0.0, 1.0)
_COUNT = FieldRule(0, 1_000_000, integer=True)
_LEARNING_RATE = FieldRule(above=0.0, high=1e3)


def _setting(default: Any, rule: FieldRule, *, since: str | None = None) -> Any:
    """Declares a field. A field that is added after version 0.1 says in which version, see `identity_fields`."""
    return field(default=default, metadata={"rule": rule} if since is None else {"rule": rule, SINCE: since})


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """The recipe of one fine-tuning run. The default values are the default recipe: plain fine-tuning of all units.

    Depths are shares of the backbone's units, counted from the input, so that one recipe applies to every backbone.

    Attributes:
        transfer_depth: Share of units that keep pretrained weights, 0 ... 1; the other units are re-initialised.
        frozen_depth: Share of units that do not train (BatchNorm statistics included), 0 ... `transfer_depth`.
        head_lr: Peak learning rate of the head, above 0.
        body_lr: Peak learning rate of the units, above 0, before `layer_lr_shape`.
        layer_lr_shape: log10 multipliers of `body_lr` at the input, the middle and the top of the backbone,
            interpolated linearly over the units between. A straight line is a geometric decay.
        decay_strength: Total weight decay of weight matrices and filters, 0 or more. Biases, normalisation
            parameters and other vectors are never decayed.
        sp_mix: Share of the decay that is towards the pretrained weights (L2-SP) instead of zero (L2), 0 ... 1.
        sp_depth: Share of units, from the input, to which L2-SP applies, 0 ... 1; units above it have L2 alone.
        optimizer: "sgd" (with Nesterov momentum) or "adamw" (decoupled decay; `momentum` is its beta1).
        momentum: 0 ... below 1.
        batch_size: Images per step, 1 or more.
        label_smoothing: Share of the label that is spread over all classes, 0 ... below 1.
        augmentation: "none", "crop" (random resized crop and horizontal flip), "color" (adds colour jitter) or "rand"
            (adds two operations as in RandAugment).
        mixup: Alpha of mixup's Beta distribution; 0 disables mixup. Mixup applies to the input of the first unit that
            trains: images, or frozen features (manifold mixup).
        ema: Decay per step of the moving average of the weights, which is evaluated and kept; 0 disables it.
        warmup: Share of all steps in which the learning rates rise linearly, 0 ... 1; then they fall to 0 along a
            cosine.
        views: Augmented views per image for which the features of the frozen units are cached, 1 or more.
        zap_period: Epochs between resets of the head's rows (`nbt.transfer.zap`); 0 disables them. A zap takes place at
            the start of an epoch, never of the first. A period of `epochs` or more would therefore have no effect:
            `nbt.fine_tune` and `nbt train` refuse it, and `repair` sets it to 0.
        zap_fraction: Share of the classes that each zap resets, above 0, up to 1; every zap draws the classes again.
        zap_scale: Standard deviation of the new weights of a zap: "per_row" (always sqrt(2 / D)) or "as_released"
            (sqrt(2 / (K D)) for a whole head of K classes, as in the authors' code).
        head_scale: Factor of the head's initial random weights and bias, 0 ... 1. 0 is the zero head of FAST, for
            which the first gradient of the backbone is exactly 0.
        feature_norm: Standardisation of the features before the head: "none", "batch" (statistics of the batch;
            running statistics in evaluation) or "target" (statistics of the training images at the initial weights).
        stall: Share of all steps, from the first, in which the head alone trains, 0 ... 1. The backbone does not
            change: no decay, no update of BatchNorm statistics, no update of its optimiser state.
        head_lr_multiplier: Factor of `head_lr` during the stall, above 0.
        init: Initial weights of the units: "pretrained" (the weights of the task), "inject" (weights of `teacher`,
            injected with TLI) or "kaiming" (a Kaiming-normal draw of every filter and matrix).
        teacher: Model whose weights are injected: "BACKBONE" (the library's weights) or "BACKBONE=FILE" (a state dict).
        blend: Share of the centre crop in an injected tensor of another shape, 0 ... 1; the rest is resized.
        pretrain_scheme: Training scheme of a source model that nbt trains: "iid", "asb" or "meta-asb".
        pretrain_zap_period: Epochs ("iid") or episodes (other schemes) between zaps in that training; 0 disables them.
        linearized: Whether to train the first-order expansion of the network around its initial weights instead of the
            network (`nbt.transfer.linearize`); BatchNorm and dropout are then in evaluation mode.
        target_scale: a of the squared error `1/2 sum_c (f_c - a [c = y])^2`, 0 or more; 0 selects cross-entropy.
        method: Method against forgetting in a stream of tasks: "finetune" (none), "ewc", "dlcft", "probe" (an
            incremental ridge regression on frozen features) or "joint" (training on all images so far).
        curvature: Curvature of "dlcft": "kfac", "diagonal" or "exact".
        penalty_strength: Factor of the penalty of "ewc" and "dlcft", 0 or more; 1 is the derived penalty.
        epochs: Number of epochs, 1 or more.
    """

    transfer_depth: float = _setting(1.0, _FRACTION)
    frozen_depth: float = _setting(0.0, _FRACTION)
    head_lr: float = _setting(0.01, _LEARNING_RATE)
    body_lr: float = _setting(0.01, _LEARNING_RATE)
    layer_lr_shape: tuple[float, float, float] = _setting((0.0, 0.0, 0.0), FieldRule(-6.0, 6.0, length=3))
    decay_strength: float = _setting(1e-4, FieldRule(0.0, 1e3))
    sp_mix: float = _setting(0.0, _FRACTION)
    sp_depth: float = _setting(1.0, _FRACTION)
    optimizer: str = _setting("sgd", FieldRule(choices=OPTIMIZERS))
    momentum: float = _setting(0.9, FieldRule(0.0, 0.9999))
    batch_size: int = _setting(32, FieldRule(1, 2**20, integer=True))
    label_smoothing: float = _setting(0.0, FieldRule(0.0, 0.99))
    augmentation: str = _setting("crop", FieldRule(choices=AUGMENTATIONS))
    mixup: float = _setting(0.0, FieldRule(0.0, 100.0))
    ema: float = _setting(0.0, FieldRule(0.0, 0.99999))
    warmup: float = _setting(0.1, _FRACTION)
    views: int = _setting(4, FieldRule(1, 10_000, integer=True))
    zap_period: int = _setting(0, _COUNT)
    zap_fraction: float = _setting(1.0, FieldRule(above=0.0, high=1.0))
    zap_scale: str = _setting("per_row", FieldRule(choices=ZAP_SCALES))
    head_scale: float = _setting(1.0, _FRACTION)
    feature_norm: str = _setting("none", FieldRule(choices=FEATURE_NORMS))
    stall: float = _setting(0.0, _FRACTION)
    head_lr_multiplier: float = _setting(1.0, _LEARNING_RATE)
    init: str = _setting("pretrained", FieldRule(choices=INITS))
    teacher: str = _setting("", FieldRule(text=True))
    blend: float = _setting(0.75, _FRACTION)
    pretrain_scheme: str = _setting("iid", FieldRule(choices=PRETRAIN_SCHEMES))
    pretrain_zap_period: int = _setting(0, _COUNT)
    linearized: bool = _setting(False, FieldRule(flag=True))
    target_scale: float = _setting(0.0, FieldRule(0.0, 1e3))
    method: str = _setting("finetune", FieldRule(choices=METHODS))
    curvature: str = _setting("kfac", FieldRule(choices=CURVATURES))
    penalty_strength: float = _setting(1.0, FieldRule(0.0, 1e9))
    epochs: int = _setting(12, FieldRule(1, 1_000_000, integer=True))

    def __post_init__(self) -> None:
        values = vars(self)
        for name, rule in _rules():
            if not rule.fits(values[name]):
                object.__setattr__(self, name, rule.check(name, values[name]))
        self._check_combination()

    def _check_combination(self) -> None:
        if self.feature_norm == "batch" and self.batch_size == 1:
            raise UsageError("feature_norm: batch statistics need a batch_size of 2 or more; use feature_norm: target")

    def replace(self, **changes: Any) -> TransferSettings:
        """Returns a copy with changed fields, which are checked; returns `self` if no value changes.

        Raises:
            TypeError: A field is unknown.
            UsageError: A value breaks its rule.
        """
        values = vars(self)
        if not changes.keys() <= values.keys():
            return dataclasses.replace(self, **changes)  # raises a TypeError that names the unknown field
        changed = {name: value for name, value in changes.items() if not _same_type_and_value(value, values[name])}
        if not changed:
            return self
        # A proposal of a sampler repairs hundreds of settings, so unchanged values are not checked again.
        copy = object.__new__(type(self))
        vars(copy).update(values)
        for name, value in changed.items():
            object.__setattr__(copy, name, setting_rule(name).check(name, value))
        copy._check_combination()
        return copy

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings in JSON types, in the order of the fields; `from_dict` reads them."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """Returns what stored hashes and checkpoints know of the settings, in JSON types; see `identity_fields`."""
        return identity_fields(self, self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransferSettings:
        """Builds settings from a mapping; fields that are missing have their defaults.

        Raises:
            UsageError: A name is unknown (the message suggests similar names), or a value breaks its rule.
        """
        names = setting_names()
        for name in values:
            if name not in names:
                raise UsageError(f"unknown setting {name!r}; {nearest(str(name), names)}")
        return cls(**values)

    def to_yaml(self) -> str:
        """Returns the settings as a YAML mapping; `from_yaml` reads it."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "settings") -> TransferSettings:
        """Reads settings from YAML text.

        Args:
            text: A YAML mapping of field names to values.
            source: Name of the text in error messages, usually its path.

        Raises:
            UsageError: The text is not YAML or not a mapping, a name is unknown, or a value breaks its rule.
        """
        values = parse_yaml_mapping(text, source=source)
        try:
            return cls.from_dict(values)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error

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


def _same_type_and_value(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


@cache
def _rules() -> tuple[tuple[str, FieldRule], ...]:
    return tuple((name, setting_rule(name)) for name in setting_names())


@cache
def setting_names() -> tuple[str, ...]:
    """Returns the names of all settings, in the order of the fields."""
    return tuple(item.name for item in dataclasses.fields(TransferSettings))


def setting_rule(name: str) -> FieldRule:
    """Returns the rule of the setting `name`."""
    rule = TransferSettings.__dataclass_fields__[name].metadata["rule"]
    assert isinstance(rule, FieldRule)
    return rule


def repair(settings: TransferSettings) -> TransferSettings:
    """Returns the settings that a trial runs and logs: impossible combinations are replaced.

    `frozen_depth` is at most `transfer_depth`, because random units are never frozen. Settings without effect get their
    defaults, so that equal runs have equal settings:

    - Without L2-SP (`sp_mix` 0, no decay, or no trainable transferred unit within `sp_depth`), `sp_mix` is 0 and
      `sp_depth` is 1.
    - A `zap_period` of `epochs` or more is 0. Without zaps, `zap_fraction` and `zap_scale` have their defaults.
    - If only the head trains, `stall` is 0. Without a stall, `head_lr_multiplier` is 1.
    - With `init` "kaiming", `transfer_depth` is 0. Only `init` "inject" has a `teacher` and a `blend`.
    - If only the head trains, the network is linear, so `linearized` is false. A linearised network needs a head that
      is not 0 and features without batch statistics: a `head_scale` of 0 becomes 1, a `feature_norm` of "batch"
      becomes "target".
    - EWC is derived for cross-entropy and for a network that is not linearised, DLCFT for squared error; only these two
      methods have a penalty. A probe is a regression on frozen features: it keeps only the settings of the source and
      `epochs`.
    """
    settings = _repair_linearized(_repair_start(_repair_method(settings)))
    return _repair_l2sp(_repair_stall(_repair_zaps(settings)))


def _repair_start(settings: TransferSettings) -> TransferSettings:
    depth = 0.0 if settings.init == "kaiming" else settings.transfer_depth
    settings = settings.replace(transfer_depth=depth, frozen_depth=min(settings.frozen_depth, depth))
    if settings.init == "inject" and depth == 0.0:
        settings = settings.replace(init="pretrained")
    return settings if settings.init == "inject" else _reset_to_defaults(settings, "teacher", "blend")


def _repair_linearized(settings: TransferSettings) -> TransferSettings:
    if settings.frozen_depth == 1.0:
        settings = _reset_to_defaults(settings, "linearized")
    if not settings.linearized:
        return settings
    norm = "target" if settings.feature_norm == "batch" else settings.feature_norm
    return settings.replace(feature_norm=norm, head_scale=settings.head_scale or 1.0)


def _repair_method(settings: TransferSettings) -> TransferSettings:
    if settings.method == "ewc":
        settings = _reset_to_defaults(settings, "target_scale", "linearized")
    if settings.method == "probe":
        # A ridge regression in closed form does not depend on the settings of gradient descent.
        kept = {name: getattr(settings, name) for name in ("pretrain_scheme", "pretrain_zap_period", "epochs")}
        return TransferSettings(method="probe", frozen_depth=1.0, **kept)
    if settings.method == "dlcft":
        return settings.replace(target_scale=settings.target_scale or _TARGET_SCALE)
    return _reset_to_defaults(settings, "curvature", *(() if settings.method == "ewc" else ("penalty_strength",)))


def _repair_zaps(settings: TransferSettings) -> TransferSettings:
    if 0 < settings.zap_period < settings.epochs:
        return settings
    return _reset_to_defaults(settings, "zap_period", "zap_fraction", "zap_scale")


def _repair_stall(settings: TransferSettings) -> TransferSettings:
    if settings.frozen_depth == 1.0:
        settings = _reset_to_defaults(settings, "stall")
    return settings if settings.stall > 0.0 else _reset_to_defaults(settings, "head_lr_multiplier")


def _repair_l2sp(settings: TransferSettings) -> TransferSettings:
    l2sp_top = min(settings.sp_depth, settings.transfer_depth)
    if settings.sp_mix == 0.0 or settings.decay_strength == 0.0 or l2sp_top <= settings.frozen_depth:
        return _reset_to_defaults(settings, "sp_mix", "sp_depth")
    return settings


def _reset_to_defaults(settings: TransferSettings, *names: str) -> TransferSettings:
    """Returns settings in which the named fields have their defaults."""
    defaults = vars(_default_settings())
    if all(getattr(settings, name) == defaults[name] for name in names):
        return settings
    return settings.replace(**{name: defaults[name] for name in names})


@cache
def _default_settings() -> TransferSettings:
    return TransferSettings()
