"""Settings of the pretraining of a source model; independent of PyTorch."""

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
    """Settings of the training of a source from random weights (Frati et al., arXiv 2310.07996).

    Schemes: "iid" trains on shuffled mini-batches with Adam. "asb" alternates sequential and batch learning: an episode
    takes one step of plain SGD on each of several images of one class, then one step of Adam on these images and on
    random images of all classes. "meta-asb" takes the SGD steps on a differentiable copy of the weights; its Adam step
    updates the weights from before these steps.

    Attributes:
        scheme: One of `nbt.settings.PRETRAIN_SCHEMES`.
        zap_period: With "iid", epochs between zaps of the head; a zap takes place at the start of an epoch, never of
            the first. With the other schemes, episodes between zaps of the row of the episode's class; the published
            value is 1. 0 disables zaps.
        zap_scale: See `nbt.transfer.zap`.
        zap_fraction: With "iid", share of the classes that each zap resets, above 0, up to 1; every zap draws the
            classes again.
        lr: Learning rate of Adam.
        epochs: Number of epochs of "iid".
        batch_size: Images per step of "iid".
        episodes: Number of episodes of "asb" and "meta-asb".
        inner_lr: Learning rate of the SGD steps on single images.
        inner_steps: SGD steps per episode, on different images of the class as far as it has enough.
        remembered: Random images of all classes in the Adam step at the end of an episode.

    Raises:
        UsageError: A value is out of range, the zap period is too long for the training, or `zap_fraction` is below 1
            for a scheme with episodes.
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
                f"zap fraction {self.zap_fraction:g}: {self.scheme} zaps the one class of its episode; use a zap "
                "fraction below 1 with iid only"
            )
        if self.zap_period and not any(self.is_zap_due(number) for number in range(1, self.rounds + 1)):
            unit = "epochs" if self.is_iid else "episodes"
            raise UsageError(
                f"zap period {self.zap_period} is longer than the training of {self.rounds} {unit} allows, so no zap "
                "would take place; use a shorter period, a longer training, or 0 for no zaps"
            )

    @property
    def is_iid(self) -> bool:
        """Whether the scheme is "iid"."""
        return self.scheme == "iid"

    @property
    def rounds(self) -> int:
        """The number of epochs of "iid", of episodes of the other schemes."""
        return self.epochs if self.is_iid else self.episodes

    def is_zap_due(self, number: int) -> bool:
        """Returns whether round `number` (1 ... `rounds`) begins with a zap.

        With "iid", the first epoch never does. An episode does if its number is a multiple of the period.
        """
        if not self.zap_period:
            return False
        if self.is_iid:
            return number != 1 and (number - 1) % self.zap_period == 0
        return number % self.zap_period == 0

    def gradient_steps(self, images: int) -> int:
        """Returns the number of gradient steps of a training on `images` images, including steps on single images."""
        if self.is_iid:
            return self.epochs * math.ceil(images / self.batch_size)
        return self.episodes * (self.inner_steps + 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings that the weights depend on, in plain types: equal trainings have equal dictionaries."""
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

    The values are those for Omniglot with `conv3`, and those for 84-px natural images with any other backbone. The
    embedded digits have few images, so batches are smaller and episodes fewer, and training a source takes about a
    minute. So few episodes are not enough for meta-ASB to become stable at its published inner learning rate of 0.1;
    it is 0.01 there.

    Args:
        scheme: "iid", "asb" or "meta-asb".
        backbone: Name of the backbone's builder, such as "conv3".
        digits: Whether the source is the embedded digits.
        **changes: Fields of `PretrainSettings`; None keeps the default.
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
