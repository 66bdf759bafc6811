"""Settings of continual learning on a stream of tasks; independent of PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbt.errors import UsageError, nearest
from nbt.settings.identity import identity_fields
from nbt.settings.transfer import TransferSettings

SCENARIOS = ("data", "task", "class")
KFAC_FACTOR_MODES = ("keep", "merge")
HEAD_INITS = ("fitted", "random")
CURVATURE_VECTORS = ("signs", "unit")
EVALUATION_SPLITS = ("test", "val")

METHODS: dict[str, dict[str, Any]] = {
    "dlcft": {
        "method": "dlcft",
        "linearized": True,
        "target_scale": 15.0,
        "curvature": "kfac",
        "optimizer": "adamw",
        "head_lr": 1e-2,
        "body_lr": 1e-4,
        "decay_strength": 0.0,
        "augmentation": "none",
    },
    "ewc": {"method": "ewc", "penalty_strength": 10.0},
    "finetune": {"method": "finetune"},
    "l2sp": {"method": "finetune", "sp_mix": 1.0, "decay_strength": 0.01},
    "zap": {"method": "finetune", "zap_period": 3},
    "probe": {"method": "probe", "frozen_depth": 1.0},
    "joint": {"method": "joint"},
}
"""Settings that each method changes in a recipe. The strength of L2-SP is the one that Li, Grandvalet and Davoine
(arXiv 1802.01483) use on most of their targets. The learning rate and the target scales of DLCFT are those of public
code for a related method. Its head has a higher learning rate, because the rows of new classes do not reach their
targets in a short training at 1e-4."""

TARGET_SCALES = {"class": 15.0, "data": 5.0, "task": 5.0}
"""Target scale of DLCFT per scenario. The values of "class" and "data" come from public code. "task" uses the value of
"data", because in both scenarios every output of a task has training images of its class."""

DEFAULT_TASKS = 5


@dataclass(frozen=True, kw_only=True)
class ContinualSettings:
    """Settings of a stream of tasks and of the method against forgetting.

    Attributes:
        scenario: "data" (every task has all classes and different images), "task" (every task has different classes,
            and the task of an image is known at test time) or "class" (every task has different classes, and the task
            of an image is unknown at test time).
        tasks: Number of tasks T, 2 or more.
        recipe: Settings of the training on each task; `recipe.method` is the method against forgetting.
        factors: Whether the K-FAC factors of past tasks are stored separately ("keep", the exact sum of the
            curvatures) or averaged into one pair per layer ("merge", biased; see `nbt.transfer.curvature.kfac`). Other
            curvatures are summed, which is exact.
        head: Head around which a network is linearised: "fitted" (a ridge regression on the first task; classes
            without training images in it have the rows of a new layer) or "random" (the initialisation of a new layer
            for every class). None selects "random" for the class-incremental training of a linearised network, else
            "fitted". A row of zeros would give its class a Jacobian of 0 with respect to the backbone. In
            class-incremental streams "random" had the better average accuracy on validation images: 95.5 against
            95.0 % on digits (3 seeds), 63.6 against 61.9 % on Omniglot (2), 44.3 against 42.5 % on CUB-50 (1).
        vectors: Output vectors of the Gauss-Newton curvature: "signs" (one random vector per image) or "unit" (one
            vector per output: the exact expectation at C times the cost).
        memory_bytes: Upper bound of the memory of all curvatures, in bytes.

    Raises:
        UsageError: A value is invalid, or the method is not defined for the other settings.
    """

    scenario: str
    recipe: TransferSettings
    tasks: int = DEFAULT_TASKS
    factors: str = "keep"
    head: str | None = None
    vectors: str = "signs"
    memory_bytes: int = 2 * 2**30

    def __post_init__(self) -> None:
        if self.head is None:
            is_random = self.scenario == "class" and self.has_origin_head
            object.__setattr__(self, "head", "random" if is_random else "fitted")
        choices = (
            ("scenario", SCENARIOS),
            ("factors", KFAC_FACTOR_MODES),
            ("head", HEAD_INITS),
            ("vectors", CURVATURE_VECTORS),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r}: {nearest(str(getattr(self, name)), known)}")
        if self.tasks < 2:
            raise UsageError(f"tasks {self.tasks}: a stream needs 2 or more")
        if self.memory_bytes < 0:
            raise UsageError(f"memory {self.memory_bytes}: give 0 bytes or more")
        _check_recipe(self.recipe)

    @property
    def has_origin_head(self) -> bool:
        """Whether `head` has an effect."""
        return self.recipe.linearized or self.recipe.stream.method == "dlcft"

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings in JSON types; `from_dict` reads them."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "recipe": self.recipe.to_dict()}

    def identity(self) -> dict[str, Any]:
        """Returns what stored streams and checkpoints know of the settings, in JSON types; see `identity_fields`."""
        return identity_fields(self, {**self.to_dict(), "recipe": self.recipe.identity()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ContinualSettings:
        """Builds settings from the result of `to_dict`."""
        return cls(**{**values, "recipe": TransferSettings.from_dict(values["recipe"])})


def method_overrides(method: str, scenario: str) -> dict[str, Any]:
    """Returns the settings that a method changes in a scenario: `recipe.replace(**method_overrides(...))`.

    Args:
        method: A key of `METHODS`.
        scenario: One of `SCENARIOS`.

    Raises:
        UsageError: The method or the scenario is unknown.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}: {nearest(method, METHODS)}")
    if scenario not in SCENARIOS:
        raise UsageError(f"scenario {scenario!r}: {nearest(scenario, SCENARIOS)}")
    overrides = dict(METHODS[method])
    if "target_scale" in overrides:
        overrides["target_scale"] = TARGET_SCALES[scenario]
    return overrides


def default_tasks(scenario: str, n_classes: int) -> int:
    """Returns the default number of tasks: 5, or what the number of classes allows if that is lower; at least 2."""
    max_tasks = {"data": DEFAULT_TASKS, "task": n_classes // 2, "class": n_classes}[scenario]
    return max(2, min(DEFAULT_TASKS, max_tasks))


def _check_recipe(recipe: TransferSettings) -> None:
    if recipe.linearized and recipe.head_scale == 0.0:
        raise UsageError(
            "head_scale: with a zero head, a change of the backbone does not change the output of a linearised "
            "network, so only a linear probe would be trained; use a head_scale above 0 or linearized: false"
        )
    if recipe.stream.method == "ewc" and recipe.linearized:
        raise UsageError(
            "method ewc is not defined for a linearised network: its Fisher information uses the gradients of the "
            "network itself; use linearized: false or method dlcft"
        )
