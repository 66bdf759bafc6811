"""The cost of a training relative to that of the default recipe, estimated without a clock.

It depends on the settings, the units of the backbone, the image size and the numbers of images alone, so that decisions
that use it are the same on every machine. The constants are fitted to measured CPU times, see
`studies/training_cost.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nbt.models.backbone import UnitWork, unit_work
from nbt.models.backbone_spec import parse_backbone
from nbt.settings import TransferSettings, repair
from nbt.transfer.transfer_depth import frozen_units
from nbt.tuning.storage.records import StudyConfig, StudyRecord

# Duration of an element of a layer's output in products: activations, normalisation, and memory traffic.
_ELEMENT = 8.0
# A training step takes as long as three forward passes: the gradients of the weights and of the inputs.
_STEP = 3.0
# Duration of a training step of the head on cached features relative to the step of the default recipe.
_HEAD_STEP = 0.015
# Duration of a forward pass through the frozen units, without gradients, relative to one in a step.
_FROZEN_PASS = 0.9
# A step of the first-order expansion computes the network and its directional derivatives.
_LINEARIZED = 2.2
# What a step costs whatever its number of images, relative to the rest of a step of 32 images.
_STEP_OVERHEAD = 0.2
_REFERENCE_BATCH = 32
_AUGMENTATION = {"color": 1.1, "rand": 1.15}
_DEFAULT_VALIDATION = 1 / 3


@dataclass(frozen=True)
class CostModel:
    """Estimates the cost of trainings of a task.

    Attributes:
        units: Share of each unit in the work of a forward pass, from the input; they sum to 1.
        validation: Validation images per training image.
        scale: Work of a forward pass relative to that of the backbone of the study.
        others: Name of another backbone that the search may choose -> its model.
    """

    units: tuple[float, ...]
    validation: float
    scale: float = 1.0
    others: Mapping[str, CostModel] = field(default_factory=dict)

    @classmethod
    def of(cls, backbone: str, image_size: int, facts: Mapping[str, Any], scale: float = 1.0) -> CostModel:
        """Returns the model of a task.

        Args:
            backbone: Text of the backbone.
            image_size: Height and width in pixels.
            facts: Facts about the dataset, see `nbt.task.summary.dataset_summary`.
            scale: As in the class.

        Raises:
            UsageError: The backbone cannot be built.
        """
        n_train, n_val = facts.get("train_images"), facts.get("validation_images")
        validation = n_val / n_train if n_train and n_val is not None else _DEFAULT_VALIDATION
        return cls(unit_shares(unit_work(parse_backbone(backbone), image_size)), validation, scale)

    @cached_property
    def _below(self) -> tuple[float, ...]:
        """Share of the work below each number of units from the input, (units + 1,)."""
        return tuple(sum(self.units[:number]) for number in range(len(self.units) + 1))

    @property
    def retraining(self) -> float:
        """Cost of an epoch on training and validation images, without a validation, relative to one of a trial."""
        return _STEP * (1.0 + self.validation) / (_STEP + self.validation)

    def training(self, settings: TransferSettings, epochs: int | None = None) -> float:
        """Returns the cost of a training in epochs of the default recipe on the backbone of the study.

        The features of the frozen units are computed once per view, as if no other trial had computed them.

        Args:
            settings: The recipe.
            epochs: Number of epochs after which the training is stopped; None for all.
        """
        if settings.backbone:
            return self.others[settings.backbone].training(settings.replace(backbone=""), epochs)
        settings = repair(settings)
        epochs = settings.epochs if epochs is None else epochs
        bottom, top = frozen_units(settings, len(self.units))
        views = 1 if settings.augmentation == "none" else settings.views
        below, above = self._below[bottom], 1.0 - self._below[bottom]
        forward = above * (1.0 + self.validation)
        # The gradients of the weights of a frozen unit above trained ones are not computed.
        backward = ((_STEP - 1.0) * above - sum(self.units[top.start : top.stop])) * (1.0 - settings.stall)
        step = (forward + backward) * self._factor(settings) + _HEAD_STEP * (_STEP + self.validation)
        frozen = _FROZEN_PASS * below * (min(views, epochs) + min(1, epochs) * self.validation)
        return self.scale * (epochs * step + frozen) / ((_STEP + self.validation) * (1.0 + _HEAD_STEP))

    def epoch(self, settings: TransferSettings) -> float:
        """Returns the mean cost of an epoch of a recipe relative to the default recipe."""
        return self.training(settings) / settings.epochs

    @staticmethod
    def _factor(settings: TransferSettings) -> float:
        """Returns the factor of the settings that change the duration of the steps of the units that train."""
        batch = (1.0 + _STEP_OVERHEAD * _REFERENCE_BATCH / settings.batch_size) / (1.0 + _STEP_OVERHEAD)
        linearized = _LINEARIZED if settings.linearized else 1.0
        return batch * linearized * _AUGMENTATION.get(settings.augmentation, 1.0)


# A backbone that is not known.
_EQUAL_UNITS = CostModel(units=(0.1,) * 10, validation=_DEFAULT_VALIDATION)


def relative_cost(settings: TransferSettings) -> float:
    """Returns the mean cost of an epoch relative to the default recipe, for a backbone of ten equal units."""
    return _EQUAL_UNITS.epoch(settings.replace(backbone=""))


def cost_model(record: StudyRecord) -> CostModel:
    """Returns `study_cost_model` of a stored study."""
    return study_cost_model(record.config, record.dataset)


def study_cost_model(config: StudyConfig, facts: Mapping[str, Any]) -> CostModel:
    """Returns the model of the task of a study.

    Args:
        config: Configuration of the study.
        facts: Facts about the dataset.

    Raises:
        UsageError: A backbone cannot be built.
    """
    reference = forward_work(config.backbone, config.image_size)
    others = {
        other.name: CostModel.of(
            other.backbone, other.image_size, facts, forward_work(other.backbone, other.image_size) / reference
        )
        for other in config.candidates[1:]
    }
    return replace(CostModel.of(config.backbone, config.image_size, facts), others=others)


def forward_work(backbone: str, image_size: int) -> float:
    """Returns the duration of a forward pass in products of two numbers.

    Raises:
        UsageError: The backbone cannot be built.
    """
    return sum(unit_durations(unit_work(parse_backbone(backbone), image_size)))


def unit_shares(work: Sequence[UnitWork]) -> tuple[float, ...]:
    """Returns the share of each unit in the duration of a forward pass."""
    durations = unit_durations(work)
    return tuple(duration / sum(durations) for duration in durations)


def unit_durations(work: Sequence[UnitWork]) -> list[float]:
    """Returns the duration of a forward pass of each unit in products of two numbers."""
    return [unit.products + _ELEMENT * unit.elements for unit in work]
