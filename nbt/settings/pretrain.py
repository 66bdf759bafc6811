"""PretrainSettings: one pretraining's whole recipe; frozen, validated before anything is trained, without torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from nbt.errors import UsageError, nearest, require_positive
from nbt.settings.identity import identity_fields
from nbt.settings.transfer import PRETRAIN_SCHEMES, ZAP_SCALES

_IID_FIELDS = ("epochs", "batch_size")
_EPISODE_FIELDS = ("episodes", "inner_lr", "inner_steps", "remembered")
_ZAP_FIELDS = ("zap_scale", "zap_fraction")


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How a source is trained from random weights (Frati et al., arXiv 2310.07996).

    Schemes: "iid" is shuffled mini-batches with Adam. "asb" alternates sequential and batch: an episode takes single
    images of one class by plain SGD, which is kept, then one Adam step on them and on random images of all classes.
    "meta-asb" takes the single steps on a differentiable copy, and Adam steps on the weights before them.

    Attributes:
        scheme: One of `nbt.settings.PRETRAIN_SCHEMES`.
        zap_period: With "iid" epochs between zaps of the head, at the start of an epoch and never of the first; with
            the others every so many episodes begin with a zap of their class's row, 1 being the published one. 0 is
            never.
        zap_scale: See `nbt.transfer.zap`.
        zap_fraction: With "iid" the share of the classes, drawn anew each time, that a zap resets, above 0 ... 1.
        lr: Adam's rate.
        epochs: Of "iid".
        batch_size: Of "iid".
        episodes: Of the others.
        inner_lr: Rate of the single steps.
        inner_steps: Single steps, each on another image of the class as far as it has as many.
        remembered: Random images of all classes in the step that ends an episode.

    Raises:
        UsageError: A value is out of range, the zap period reaches no epoch or episode, or a fraction is given for
            episodes.
    """

    scheme: str = "iid"
    zap_period: int = 0
    zap_scale: str = "per_row"
    zap_fraction: float = 1.0
    lr: float = 1e-3
    epochs: int = 10
    batch_size: int = 256
    episodes: int = 9000
    inner_lr: float = 1e-3
    inner_steps: int = 20
    remembered: int = 64

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("scheme", self.scheme, PRETRAIN_SCHEMES),
            ("zap scale", self.zap_scale, ZAP_SCALES),
        ):
            if value not in choices:
                raise UsageError(f"{name} {value!r}: {nearest(value, choices)}")
        require_positive(
            **{name: getattr(self, name) for name in (*_IID_FIELDS, "episodes", "inner_steps", "remembered")}
        )
        for name in ("lr", "inner_lr"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name.replace('_', ' ')}: {getattr(self, name):g} is not a rate above 0")
        self._check_zaps()

    def _check_zaps(self) -> None:
        if self.zap_period < 0:
            raise UsageError(f"zap period {self.zap_period}: give 0 (never) or more")
        if not 0.0 < self.zap_fraction <= 1.0:
            what = "0 classes" if self.zap_fraction <= 0.0 else "more than all classes"
            raise UsageError(f"zap fraction {self.zap_fraction:g}: {what}; give a share above 0, up to 1")
        if self.zap_fraction < 1.0 and not self.is_iid:
            raise UsageError(
                f"zap fraction {self.zap_fraction:g}: {self.scheme} zaps the one class of its episode; it is for iid"
            )
        if self.zap_period and not any(self.is_zap_due(number) for number in range(1, self.rounds + 1)):
            unit = "epochs" if self.is_iid else "episodes"
            raise UsageError(
                f"zap period {self.zap_period} is longer than the training of {self.rounds} {unit}, which it would "
                "never interrupt; shorten it, train longer, or give 0 for never"
            )

    @property
    def is_iid(self) -> bool:
        """Whether the scheme is "iid"."""
        return self.scheme == "iid"

    @property
    def rounds(self) -> int:
        """Epochs of "iid", episodes of the others."""
        return self.epochs if self.is_iid else self.episodes

    def is_zap_due(self, number: int) -> bool:
        """Whether round `number` (1 ... `rounds`) begins with a zap; the first epoch of "iid" never does.

        An episode does where its number is a multiple of the period; a first episode is one for the period 1 alone.
        """
        if not self.zap_period:
            return False
        if self.is_iid:
            return number != 1 and (number - 1) % self.zap_period == 0
        return number % self.zap_period == 0

    def gradient_steps(self, images: int) -> int:
        """Returns how many steps the training of so many images takes, those on single images included."""
        if self.is_iid:
            return self.epochs * math.ceil(images / self.batch_size)
        return self.episodes * (self.inner_steps + 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns what the weights depend on, in plain types: equal trainings have equal dictionaries."""
        unused = _EPISODE_FIELDS if self.is_iid else _IID_FIELDS
        values = dataclasses.asdict(self)
        for name in (*unused, *(() if self.zap_period else _ZAP_FIELDS)):
            del values[name]
        return values

    def identity(self) -> dict[str, Any]:
        """Returns what cached sources and checkpoints know of the settings, in JSON types; see `identity_fields`."""
        return identity_fields(self, self.to_dict())


def default_pretrain_settings(scheme: str, backbone: str, *, digits: bool = False, **changes: Any) -> PretrainSettings:
    """Returns the published settings of a scheme, with changes.

    They are those for Omniglot with `conv3`, and those for 84-px natural images with any other backbone. The embedded
    digits have few images: smaller batches, and fewer episodes, so that a source takes a minute; so few do not
    learn to bear meta-ASB's published inner rate, which is a tenth there.

    Args:
        scheme: "iid", "asb" or "meta-asb".
        backbone: Name of the builder.
        digits: Whether the source is the embedded digits.
        **changes: Fields of `PretrainSettings`; None leaves the default.
    """
    values: dict[str, Any] = {"scheme": scheme, "episodes": 25_000 if scheme == "meta-asb" else 9000}
    if backbone == "conv3":
        values |= {"inner_lr": 0.1 if scheme == "meta-asb" else 1e-3}
    else:
        values |= {"remembered": 100}
        if scheme == "iid":
            values |= {"lr": 3e-4, "epochs": 30}
    if digits:
        values |= {"epochs": 15, "batch_size": 64, "episodes": 400, "remembered": 100}
        values |= {"inner_lr": 0.01} if scheme == "meta-asb" else {}
    return PretrainSettings(**values | {name: value for name, value in changes.items() if value is not None})
