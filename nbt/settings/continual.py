"""ContinualSettings: how a stream of tasks is learnt; frozen, validated, without torch."""

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
"""What each method changes of a recipe. L2-SP's strength is that of Li, Grandvalet and Davoine (arXiv 1802.01483) on
most of their targets. DLCFT has the rate and the target scales of public code near it; its head a larger rate, since
rows of new classes begin at 0 and a short training at 1e-4 does not bring them to their targets."""

TARGET_SCALES = {"class": 15.0, "data": 5.0, "task": 5.0}
"""DLCFT's target scale in each scenario. Public code has the first two. A task-incremental stream is taken to be like
a data-incremental one: within a task every output has images of its class."""

DEFAULT_TASKS = 5


@dataclass(frozen=True, kw_only=True)
class ContinualSettings:
    """A stream of tasks and what is done against forgetting.

    Attributes:
        scenario: "data" (all classes in every task, other images), "task" (other classes, and at test time it is known
            of which task an image is) or "class" (other classes, and at test time nothing is known).
        tasks: Length T of the stream, 2 or more.
        recipe: How each task is learnt, and by `recipe.method` what is done against forgetting.
        factors: Whether K-FAC factors of past tasks are kept apart ("keep", exact sums of what they stand for) or
            averaged into one pair a layer ("merge", biased; see `nbt.transfer.curvature.kfac`). Other curvatures are summed,
            which is exact.
        head: Head around which a network is linearised: "fitted" (a ridge regression on the first task, the rows of
            classes to come 0) or "random" (as a new layer has it).
        vectors: Output vectors of the Gauss-Newton curvature: "signs" (a random one an image) or "unit" (every
            output: its exact expectation, at C times the cost).
        memory_bytes: Bound on the memory of the curvatures.

    Raises:
        UsageError: A value is wrong, or the method is not defined with the others.
    """

    scenario: str
    recipe: TransferSettings
    tasks: int = DEFAULT_TASKS
    factors: str = "keep"
    head: str = "fitted"
    vectors: str = "signs"
    memory_bytes: int = 2 * 2**30

    def __post_init__(self) -> None:
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

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; `from_dict` reads them back."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "recipe": self.recipe.to_dict()}

    def identity(self) -> dict[str, Any]:
        """Returns what stored streams and checkpoints know of the settings, in JSON types; see `identity_fields`."""
        return identity_fields(self, {**self.to_dict(), "recipe": self.recipe.identity()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ContinualSettings:
        """Reads what `to_dict` wrote."""
        return cls(**{**values, "recipe": TransferSettings.from_dict(values["recipe"])})


def method_overrides(method: str, scenario: str) -> dict[str, Any]:
    """Returns what a method changes of a recipe in a scenario: `recipe.replace(**method_overrides(...))`.

    Args:
        method: A key of `METHODS`.
        scenario: One of `SCENARIOS`.

    Raises:
        UsageError: One of them is unknown.
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
    """Returns the length of a stream that was not told: 5, or as many as the classes give where these are fewer."""
    most = {"data": DEFAULT_TASKS, "task": n_classes // 2, "class": n_classes}[scenario]
    return max(2, min(DEFAULT_TASKS, most))


def _check_recipe(recipe: TransferSettings) -> None:
    if recipe.linearized and recipe.head_scale == 0.0:
        raise UsageError(
            "head_scale: around a head that is 0 no change of the backbone changes the output, so a linearised stream "
            "would be a linear probe; give a head_scale above 0, or linearized: false"
        )
    if recipe.method == "ewc" and recipe.linearized:
        raise UsageError(
            "method ewc is defined for the network itself, whose gradients its Fisher information is of; give "
            "linearized: false, or method dlcft"
        )
