"""The repair of settings: impossible combinations, and settings without effect."""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import Any

from nbt.settings.declaration import SETTINGS
from nbt.settings.technique import TECHNIQUES
from nbt.settings.transfer import TransferSettings

# Target scale of DLCFT if a recipe sets none; public code uses 5 and 15.
_TARGET_SCALE = 5.0
_ZAP_SETTINGS = tuple(name for name, setting in SETTINGS.items() if setting.technique == "zapping")
_DEFAULTS = {name: setting.default for name, setting in SETTINGS.items()}


def repair(settings: TransferSettings) -> TransferSettings:
    """Returns the settings that a trial runs and logs: impossible combinations are replaced.

    `frozen_depth` is at most `transfer_depth`, because random units are never frozen. Settings without effect get their
    defaults, so that equal runs have equal settings:

    - Without L2-SP (`sp_mix` 0, no decay, or no trainable transferred unit within `sp_depth`), `sp_mix` is 0 and
      `sp_depth` is 1.
    - If `frozen_depth` and `frozen_top` leave only the head to train, `frozen_top` is 0 and `frozen_depth` its maximum.
      Without a transferred unit within `frozen_top`, it is 0.
    - A `zap_period` without a zap within `zap_until` is 0. Without zaps, the other settings of zapping have their
      defaults.
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
    settings = _repair_l2sp(_repair_stall(_repair_zaps(settings)))
    for technique in TECHNIQUES.values():
        settings = technique.repair(settings)
    return settings


def _repair_start(settings: TransferSettings) -> TransferSettings:
    init = settings.source.init
    depth = 0.0 if init == "kaiming" else settings.transfer_depth
    frozen, top = min(settings.frozen_depth, depth), settings.frozen_top
    if top and (frozen + top >= 1.0 or depth <= 1.0 - top):
        frozen, top = depth if frozen + top >= 1.0 else frozen, 0.0
    if (depth, frozen, top) != (settings.transfer_depth, settings.frozen_depth, settings.frozen_top):
        settings = settings.replace(transfer_depth=depth, frozen_depth=frozen, frozen_top=top)
    if init == "inject" and depth > 0.0:
        return settings
    if init == "inject":
        settings = settings.replace(init="pretrained")
    return _reset_to_defaults(settings, "teacher", "blend")


def _repair_linearized(settings: TransferSettings) -> TransferSettings:
    if settings.frozen_depth == 1.0:
        settings = _reset_to_defaults(settings, "linearized")
    if not settings.linearized:
        return settings
    norm = "target" if settings.feature_norm == "batch" else settings.feature_norm
    return settings.replace(feature_norm=norm, head_scale=settings.head_scale or 1.0)


def _repair_method(settings: TransferSettings) -> TransferSettings:
    method = settings.stream.method
    if method == "ewc":
        settings = _reset_to_defaults(settings, "target_scale", "linearized")
    if method == "probe":
        # A ridge regression in closed form does not depend on the settings of gradient descent.
        kept = {name: settings.value(name) for name in ("pretrain_scheme", "pretrain_zap_period", "backbone", "epochs")}
        return TransferSettings(method="probe", frozen_depth=1.0, **kept)
    if method == "dlcft":
        return settings.replace(target_scale=settings.target_scale or _TARGET_SCALE)
    return _reset_to_defaults(settings, "curvature", *(() if method == "ewc" else ("penalty_strength",)))


def _repair_zaps(settings: TransferSettings) -> TransferSettings:
    if settings.zap_period and settings.is_zap_due(settings.zap_period + 1) and settings.zap_period < settings.epochs:
        return settings
    return _reset_to_defaults(settings, *_ZAP_SETTINGS)


def _repair_stall(settings: TransferSettings) -> TransferSettings:
    if settings.frozen_depth == 1.0:
        settings = _reset_to_defaults(settings, "stall")
    return settings if settings.stall > 0.0 else _reset_to_defaults(settings, "head_lr_multiplier")


def _repair_l2sp(settings: TransferSettings) -> TransferSettings:
    l2sp_top = min(settings.sp_depth, settings.transfer_depth, 1.0 - settings.frozen_top)
    if settings.sp_mix == 0.0 or settings.decay_strength == 0.0 or l2sp_top <= settings.frozen_depth:
        return _reset_to_defaults(settings, "sp_mix", "sp_depth")
    return settings


def _reset_to_defaults(settings: TransferSettings, *names: str) -> TransferSettings:
    """Returns settings in which the named settings have their defaults."""
    read, defaults = _reader_and_defaults(names)
    # A proposal of a sampler repairs hundreds of settings, most of which have these defaults.
    return settings if read(settings) == defaults else settings.replace(**{name: _DEFAULTS[name] for name in names})


@cache
def _reader_and_defaults(names: tuple[str, ...]) -> tuple[attrgetter[Any], Any]:
    """Returns a function that reads settings that are declared in dataclasses, and what it reads from the defaults."""
    groups = (f"{SETTINGS[name].group}." if SETTINGS[name].group else "" for name in names)
    read = attrgetter(*(group + name for group, name in zip(groups, names, strict=True)))
    return read, read(TransferSettings())
