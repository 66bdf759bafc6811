"""TransferSettings: one trial's whole recipe; frozen, validated, YAML in and out."""

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

# Where DLCFT is asked for without the scale of its targets; public code has 5 and 15.
_TARGET_SCALE = 5.0


@dataclass(frozen=True)
class FieldRule:
    """What one field accepts: a closed range (`low`, `high`; open where `above` is set), choices, a flag or a line."""

    low: float = -math.inf
    high: float = math.inf
    above: float | None = None
    choices: tuple[str, ...] = ()
    integer: bool = False
    length: int = 0
    text: bool = False
    flag: bool = False

    def fits(self, value: Any) -> bool:
        """Returns whether `check` surely returns the very same value. It takes a fraction of the time."""
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
            UsageError: It has another type, is not finite or out of range; the message names the field and the rule.
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
            # A table's row has NumPy's own.
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
        """Returns the rule in words, e.g. "0 ... 1" or "above 0"."""
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
    """The recipe of one fine-tuning run. The defaults are the library's default recipe: plain full fine-tuning.

    Depths are shares of the backbone's units counted from the input, so that one recipe fits every backbone.

    Attributes:
        transfer_depth: Share of units that keep pretrained weights, 0 ... 1; the rest is re-initialised.
        frozen_depth: Share of units that do not train (BatchNorm statistics included), 0 ... `transfer_depth`.
        head_lr: Peak learning rate of the head, above 0.
        body_lr: Peak learning rate of the units, above 0, before `layer_lr_shape`.
        layer_lr_shape: log10 multipliers on `body_lr` at the input, the middle and the top of the backbone,
            interpolated linearly over the units between. A geometric decay is a straight line.
        decay_strength: Total weight decay of weight matrices and filters, 0 or more. Biases, normalisation
            parameters and other vectors are never decayed.
        sp_mix: Share of the decay that pulls to the pretrained weights (L2-SP) and not to zero (L2), 0 ... 1.
        sp_depth: Share of units, from the input, to which L2-SP applies; units above it have L2 alone, 0 ... 1.
        optimizer: "sgd" (Nesterov) or "adamw" (the decay is decoupled, `momentum` is its beta1).
        momentum: 0 ... below 1.
        batch_size: Images a step, 1 or more.
        label_smoothing: Share of the label spread over all classes, 0 ... below 1.
        augmentation: "none", "crop" (random resized crop and mirror), "color" (and colour jitter) or "rand"
            (and a RandAugment-like pair of operations); each includes the ones before it.
        mixup: Alpha of the Beta distribution mixup draws from, 0 is off. It mixes the input of the first unit that
            trains: images, or frozen features (manifold mixup).
        ema: Decay a step of the moving average of the weights that is evaluated and kept, 0 is off.
        warmup: Share of all steps over which the rates rise linearly; after it they fall on a cosine to 0.
        views: Augmented views of each image that a frozen prefix is run on and cached, 1 or more.
        zap_period: Epochs between resets of the head's rows (`nbt.transfer.zap`), 0 is never. A zap opens an epoch,
            never the first, so that a period of `epochs` or more would not come: `nbt.fine_tune` and `nbt train` refuse
            it, and `repair` makes it 0.
        zap_fraction: Share of the classes, drawn anew each time, that a zap resets, above 0 ... 1.
        zap_scale: Deviation that a zap draws from: "per_row" (sqrt(2 / D) whatever is zapped) or "as_released"
            (a whole head of K classes by sqrt(2 / (K D)), as the authors' code does).
        head_scale: What the head's first random weights and bias are multiplied by, 0 ... 1. 0 is FAST's zero head,
            whose first gradient into the backbone is exactly 0.
        feature_norm: How features are standardised before the head: "none", "batch" (by the statistics of the batch,
            in evaluation by running ones) or "target" (by those of the training images at the pretrained weights).
        stall: Share of all steps, from the first, in which the head alone trains, 0 ... 1. Nothing of the backbone
            moves: no decay, no BatchNorm statistics, no state of its optimiser.
        head_lr_multiplier: What multiplies `head_lr` during the stall, above 0.
        init: What the units start from: "pretrained" (the task's own weights), "inject" (weights of `teacher`, injected
            as TLI does) or "kaiming" (a Kaiming-normal draw of every filter and matrix).
        teacher: Whose weights are injected: "BACKBONE" (the library's weights) or "BACKBONE=FILE" (a state dict).
        blend: Share of the centre crop, 0 ... 1, in an injected tensor of another shape; the rest is resized.
        pretrain_scheme: How a source that is trained here is trained: "iid", "asb" or "meta-asb".
        pretrain_zap_period: Epochs ("iid") or episodes (the others) between zaps in that training, 0 is never.
        linearized: Whether the first-order expansion of the network around its start is trained in its place
            (`nbt.transfer.linearize`); BatchNorm and dropout are then in evaluation mode.
        target_scale: a of the squared error `1/2 sum_c (f_c - a [c = y])^2`, 0 or more; 0 is cross-entropy.
        method: What a stream of tasks does against forgetting: "finetune" (nothing), "ewc", "dlcft", "probe" (a running
            ridge on frozen features) or "joint" (training on everything so far). Of one task alone it says nothing.
        curvature: Of "dlcft": "kfac", "diagonal" or "exact".
        penalty_strength: What the penalty of "ewc" and "dlcft" is multiplied by, 0 or more; 1 is as derived.
        epochs: Length of the training, 1 or more.
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
        mine = vars(self)
        for name, rule in _rules():
            if not rule.fits(mine[name]):
                object.__setattr__(self, name, rule.check(name, mine[name]))
        self._check_together()

    def _check_together(self) -> None:
        if self.feature_norm == "batch" and self.batch_size == 1:
            raise UsageError("feature_norm: batch statistics need a batch_size of 2 or more; use feature_norm: target")

    def replace(self, **changes: Any) -> TransferSettings:
        """Returns a copy with some fields changed and checked; itself where nothing changes."""
        mine = vars(self)
        if not changes.keys() <= mine.keys():
            return dataclasses.replace(self, **changes)  # which says so
        changed = {name: value for name, value in changes.items() if not _same_type_and_value(value, mine[name])}
        if not changed:
            return self
        # A proposal repairs hundreds of settings: what was checked once is not checked again.
        made = object.__new__(type(self))
        vars(made).update(mine)
        for name, value in changed.items():
            object.__setattr__(made, name, setting_rule(name).check(name, value))
        made._check_together()
        return made

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types, in the order of the fields; `from_dict` reads it back."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """Returns what stored hashes and checkpoints know of the settings, in JSON types; see `identity_fields`."""
        return identity_fields(self, self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransferSettings:
        """Builds settings from a mapping; what is not named keeps its default.

        Raises:
            UsageError: A name is unknown (the nearest are given), or a value breaks its rule.
        """
        names = setting_names()
        for name in values:
            if name not in names:
                raise UsageError(f"unknown setting {name!r}; {nearest(str(name), names)}")
        return cls(**values)

    def to_yaml(self) -> str:
        """Returns a YAML mapping that `from_yaml` reads back to equal settings."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "settings") -> TransferSettings:
        """Reads settings from YAML text.

        Args:
            text: A mapping of field names to values.
            source: What the text is called in errors, usually its path.

        Raises:
            UsageError: The text is not YAML, not a mapping, or names or values are wrong.
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
            UsageError: The file cannot be read as text or its content is wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot read settings ({error})") from error
        return cls.from_yaml(text, source=str(path))


def _same_type_and_value(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


@cache
def _rules() -> tuple[tuple[str, FieldRule], ...]:
    return tuple((name, setting_rule(name)) for name in setting_names())


@cache
def setting_names() -> tuple[str, ...]:
    """Returns the names of all settings, in order."""
    return tuple(item.name for item in dataclasses.fields(TransferSettings))


def setting_rule(name: str) -> FieldRule:
    """Returns what the setting `name` accepts."""
    rule = TransferSettings.__dataclass_fields__[name].metadata["rule"]
    assert isinstance(rule, FieldRule)
    return rule


def repair(settings: TransferSettings) -> TransferSettings:
    """Returns the settings that are really run and logged, with combinations that cannot be made possible.

    A frozen depth above the transfer depth is cut to it: random units are never frozen. What the remaining settings
    cannot influence is set to its neutral value, so that equal runs have equal settings:

    - without a pull (`sp_mix` 0, no decay, or no transferred unit under it) `sp_mix` is 0 and `sp_depth` 1;
    - a zap period that no epoch reaches is 0, and without zaps their fraction and scale are neutral;
    - where nothing but the head trains there is no stall, and without a stall its rate multiplier is 1;
    - a Kaiming draw transfers nothing, and only an injection has a teacher and a blend;
    - where nothing but the head trains the network is linear already and `linearized` is false; around a zero head the
      expansion knows nothing of the backbone, so a linearised head begins at its own scale, and its features have no
      statistics of batches;
    - EWC is derived for cross-entropy and for the network itself, DLCFT for squared error, and only they have a
      penalty; a probe is a regression on frozen features, of which no other setting says anything.
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
        # A ridge regression in closed form: nothing of how networks train acts on it.
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
    """Returns settings in which some fields have their defaults."""
    defaults = vars(_default_settings())
    if all(getattr(settings, name) == defaults[name] for name in names):
        return settings
    return settings.replace(**{name: defaults[name] for name in names})


@cache
def _default_settings() -> TransferSettings:
    return TransferSettings()
