"""ClassStreamSettings: how a transfer to a stream of classes is run and repeated; frozen, validated, without torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from nbt.errors import UsageError, nearest, require_positive

PROTOCOLS = ("continual", "standard")
TRAIN_LAYERS = ("all", "head")

DEFAULT_RATES = tuple(float(f"{0.055 * (4e-5 / 0.055) ** (step / 7):.2g}") for step in range(8))
"""Adam's learning rates that are swept: eight from .055 to 4e-5 in equal ratios."""


@dataclass(frozen=True, kw_only=True)
class ClassStreamSettings:
    """The transfer protocols of the zapping paper (Frati et al., arXiv 2310.07996).

    Every run draws classes, and images of them to train and to test on, starts from the pretrained weights with a
    fresh head (Kaiming-normal weights, zero bias) and trains with Adam. "continual" goes through class after class,
    one image a step, each image once. "standard" takes shuffled mini-batches. The rate is chosen by the mean accuracy
    of draws of its own; then other draws give the result.

    Attributes:
        protocol: "continual" or "standard".
        classes: Classes of a draw; the published number for Omniglot is 600.
        train: Images a class to train on.
        test: Images a class to test on.
        draws: Runs that give the result.
        sweep_draws: Runs at each rate that choose it.
        rates: Adam's rates to choose from; one is taken as it is.
        train_layers: "all", or "head" alone.
        epochs: Of "standard".
        batch_size: Of "standard".
        skip_classes: So many first classes of the dataset take no part, such as those that a source was trained on.

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
        """Returns the settings in plain types, without those that the protocol does not have."""
        values = dataclasses.asdict(self) | {"rates": list(self.rates)}
        for name in ("epochs", "batch_size") if self.protocol == "continual" else ():
            del values[name]
        return values
