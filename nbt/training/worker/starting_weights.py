"""Cache of the weights from which the units of a trial may start, shared by the trials of a worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.models.backbone import Backbone
from nbt.models.backbone_spec import BackboneSpec
from nbt.models.teacher import Teacher, canonical_teacher_name, load_teacher
from nbt.models.weights import hash_weights, random_unit_state
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.pretrain.scheme_sources import digits_scheme_source
from nbt.training.recipe.checks import MISSING_TEACHER_MESSAGE, check_pretraining, is_trained_by_nbt
from nbt.transfer.injection.weight_injection import inject_weights

State = Mapping[str, torch.Tensor]

# Injections depend on their blend, which trials rarely share.
_MAX_CACHED = 4


@dataclass(frozen=True, eq=False)
class StartingWeights:
    """Starting weights of the units.

    Attributes:
        w0: State of the units, with keys "units.I....", on the device.
    """

    w0: State

    @cached_property
    def hash(self) -> str:
        """Hash of the tensors, see `hash_weights`; part of the keys of the frozen-feature cache."""
        return hash_weights(self.w0)


class StartingWeightsCache:
    """Cache of the starting weights of a worker's trials of one task.

    Args:
        task: The task, whose weights are the default.
        to_device: Moves a tensor to the device of the trials.
        model: Model from `task.build_model`, on the device, whose units may be overwritten.
    """

    def __init__(self, task: Task, to_device: Callable[[torch.Tensor], torch.Tensor], model: Backbone) -> None:
        self._task, self._to_device, self._model = task, to_device, model
        self._task_weights = StartingWeights(self._copy_units())
        self._cache: OrderedDict[Hashable, StartingWeights] = OrderedDict()
        self._teachers: dict[str, Teacher] = {teacher.name: teacher for teacher in task.teachers}

    def get(self, settings: TransferSettings) -> StartingWeights:
        """Returns the starting weights of repaired settings.

        Raises:
            UsageError: The settings inject weights without a teacher or with one that cannot be read, or set a
                pretraining scheme for weights that nbt does not train.
        """
        key = _cache_key(settings)
        if not key:
            return self._task_weights
        if key not in self._cache:
            injects = settings.source.init == "inject"
            w0 = self._inject_teacher(settings) if injects else self._load_scheme_source(settings)
            self._cache[key] = StartingWeights(self._state_to_device(w0))
            while len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _state_to_device(self, state: State) -> State:
        return {name: self._to_device(tensor) for name, tensor in state.items()}

    def _load_scheme_source(self, settings: TransferSettings) -> State:
        task = self._task
        check_pretraining(settings, task.backbone, task.dataset, task.weights)
        scheme, period = settings.source.pretrain_scheme, settings.source.pretrain_zap_period
        return digits_scheme_source(task.backbone, task.image_size, scheme=scheme, zap_period=period).w0

    def _inject_teacher(self, settings: TransferSettings) -> State:
        task, teacher = self._task, self._get_teacher(settings.source.teacher)
        w0, report = inject_weights(task.backbone, task.image_size, teacher, blend=settings.source.blend)
        self._model.load_pretrained(self._state_to_device(w0))
        task.estimate_statistics(self._model, report.statistics)
        return self._copy_units()

    def _copy_units(self) -> State:
        return {name: tensor.detach().clone() for name, tensor in self._model.unit_state_dict().items()}

    def _get_teacher(self, name: str) -> Teacher:
        if not name:
            raise UsageError(MISSING_TEACHER_MESSAGE)
        if name in self._teachers:
            return self._teachers[name]
        name = canonical_teacher_name(name)
        if name not in self._teachers:
            self._teachers[name] = load_teacher(name)
        return self._teachers[name]


def has_nbt_source(task: Task) -> bool:
    """Returns whether nbt trains the default weights of a task; their training can then be a setting of trials."""
    return is_trained_by_nbt(task.backbone, task.dataset, task.weights)


def draw_kaiming_state(spec: BackboneSpec, image_size: int, seed: int) -> dict[str, torch.Tensor]:
    """Returns the state of new units with Kaiming-normal filters and matrices and zero biases.

    See He et al. 2015, arXiv 1502.01852. Normalisation layers keep their default initialisation.
    """
    state = random_unit_state(spec, image_size, seed)
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim in (2, 4):
            nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=rng)
            bias = state.get(name.removesuffix("weight") + "bias")
            if bias is not None:
                bias.zero_()
    return state


def _cache_key(settings: TransferSettings) -> tuple[Hashable, ...]:
    source = settings.source
    if source.init == "inject":
        return ("inject", source.teacher, source.blend)
    if source.pretrain_scheme != "iid" or source.pretrain_zap_period:
        return ("source", source.pretrain_scheme, source.pretrain_zap_period)
    return ()
