"""Settings of the transfer to a class stream; independent of PyTorch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from nbt.errors import UsageError, nearest, require_positive

PROTOCOLS = ("continual", "standard")
TRAIN_LAYERS = ("all", "head")

DEFAULT_RATES = tuple(float(f"{0.055 * (4e-5 / 0.055) ** (step / 7):.2g}") for step in range(8))
"""Adam's learning rates in the sweep: eight values from 0.055 to 4e-5 in equal ratios."""


@dataclass(frozen=True, kw_only=True)
class ClassStreamSettings:
    """Settings of the transfer protocols of the zapping paper (Frati et al., arXiv 2310.07996).

    Every run draws classes and training and test images of each class, starts from the pretrained weights with a new
    head (Kaiming-normal weights, zero bias) and trains with Adam. "continual" trains on one class after another, with
    one image per step, and uses each image once. "standard" trains on shuffled mini-batches. The learning rate is
    chosen by the mean accuracy over separate draws; the result comes from other draws.

    Attributes:
        protocol: "continual" or "standard".
        classes: Classes per draw, 2 or more; the published number for Omniglot is 600.
        train: Training images per class.
        test: Test images per class.
        draws: Number of runs that give the result.
        sweep_draws: Number of runs per learning rate in the sweep.
        rates: Learning rates of Adam in the sweep; a single rate is used without a sweep.
        train_layers: "all" or "head".
        epochs: Number of epochs of "standard".
        batch_size: Images per step of "standard".
        skip_classes: Number of classes at the start of the dataset that are left out, for example the classes that
            the source was trained on.

    Raises:
        UsageError: A value is out of range.
    """

    protocol: str = "continual"
    classes: int = 600
    train: int = 15
    test: int = 5
    draws: int = 10
    sweep_draws: int = 2
    rates: tuple[float, ...] = DEFAULT_RATES
    train_layers: str = "all"
    epochs: int = 10
    batch_size: int = 32
    skip_classes: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("protocol", PROTOCOLS), ("train_layers", TRAIN_LAYERS)):
            if getattr(self, name) not in choices:
                label = name.replace("_", " ")
                raise UsageError(f"{label} {getattr(self, name)!r}: {nearest(getattr(self, name), choices)}")
        counts = ("train", "test", "draws", "sweep_draws", "epochs", "batch_size")
        require_positive(**{name: getattr(self, name) for name in counts})
        if self.classes < 2:
            raise UsageError(f"classes {self.classes}: a stream needs 2 or more")
        if self.skip_classes < 0:
            raise UsageError(f"skip classes {self.skip_classes}: give 0 or more")
        wrong = [rate for rate in self.rates if not 0.0 < rate < math.inf]
        if wrong or not self.rates:
            raise UsageError(f"rates: {wrong[0]:g} is not above 0" if wrong else "rates: none given")

    def steps(self) -> int:
        """Returns the number of gradient steps of one run."""
        images = self.classes * self.train
        return images if self.protocol == "continual" else self.epochs * math.ceil(images / self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings in plain types, without those that the protocol does not use."""
        values = dataclasses.asdict(self) | {"rates": list(self.rates)}
        for name in ("epochs", "batch_size") if self.protocol == "continual" else ():
            del values[name]
        return values
