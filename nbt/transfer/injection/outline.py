"""Outlines: an architecture as what TLI matches, units of layers in order from the input.

A unit is what `nbt.models.units` reads a backbone as. Matching goes by units and not by a library's module tree, because
units are the same kind of thing in every family (the smallest piece that passes one tensor on), come in the order in
which data meet them, and leave every kind of head out; a module tree nests as its author happened to write it. Models
that are no known backbone are read by their module tree, with plain containers opened.

A layer has filters or a matrix, and takes the normalisations beside it along: what a normalisation learned belongs to
what it scales, and its shape says nothing that the layer's does not. So counted, the two similarities that the paper
gives come out to within .005.

An outline knows names and shapes alone, so one of a model on the meta device will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.models.backbone import Backbone, build_on_meta_device, default_image_size, unit_state_dict
from nbt.models.backbone_spec import BackboneSpec
from nbt.models.units import NamedModule, decompose, group

CONVOLUTION, DEPTHWISE, LINEAR = "convolution", "depthwise convolution", "linear"
ATTENTION_IN, ATTENTION_OUT = "attention in", "attention out"
_MATRIX_FAMILIES = (CONVOLUTION, DEPTHWISE, LINEAR, ATTENTION_IN, ATTENTION_OUT)
_NORM_FAMILIES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.modules.batchnorm._BatchNorm, "batch norm"),
    (nn.modules.instancenorm._InstanceNorm, "instance norm"),
    (nn.LayerNorm, "layer norm"),
    (nn.GroupNorm, "group norm"),
)
# Names under which attention keeps queries, keys and values as one matrix.
_FUSED_QKV_NAMES = ("qkv", "to_qkv")
RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Signature = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """One tensor of a layer.

    Attributes:
        key: Its name in the model's state dict.
        shape: Its shape.
        trained: Whether it is a parameter and not a buffer.
    """

    key: str
    shape: tuple[int, ...]
    trained: bool


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that can be matched with one of its family.

    Attributes:
        name: Its name in the model.
        family: "convolution", "depthwise convolution" (each filter sees one channel), "linear", "attention in"
            (queries, keys and values), "attention out", or a kind of normalisation where no other layer is near.
        tensors: By role: "weight", "bias", "running_mean", "running_var", "num_batches_tracked".
        parts: Matrices that the weight's first dimension holds one behind the other: 3 for fused attention, else 1.
        before: Normalisations before it that follow no other layer of the unit, the nearest first.
        after: Normalisations between it and the next layer, the nearest first.
    """

    name: str
    family: str
    tensors: Mapping[str, TensorInfo]
    parts: int = 1
    before: tuple[Layer, ...] = ()
    after: tuple[Layer, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.tensors["weight"].shape

    @property
    def signature(self) -> Signature:
        """All that matching looks at."""
        return (self.family, self.shape)

    def layers(self) -> Iterator[Layer]:
        """Yields itself."""
        yield self

    def with_norms(self) -> Iterator[Layer]:
        """Yields its normalisations and itself, in order."""
        yield from (*reversed(self.before), self, *self.after)


@dataclass(frozen=True, eq=False)
class Block:
    """A unit, or a whole network.

    Attributes:
        name: Its name in the model.
        children: Its layers or units, in order from the input.
        loose: Tensors in it that belong to no layer (class token, positions, layer scales), by their name inside it.
    """

    name: str
    children: tuple[Block | Layer, ...]
    loose: Mapping[str, TensorInfo] = field(default_factory=dict)

    @cached_property
    def signature(self) -> Signature:
        """All that matching looks at."""
        return tuple(child.signature for child in self.children)

    def layers(self) -> Iterator[Layer]:
        """Yields its layers in order, without the normalisations that go along."""
        for child in self.children:
            yield from child.layers()

    def blocks(self) -> Iterator[Block]:
        """Yields itself and the blocks in it."""
        yield self
        for child in self.children:
            if isinstance(child, Block):
                yield from child.blocks()


def read_outline(model: nn.Module, example_input: torch.Tensor | None = None) -> Block:
    """Reads a model; neither parameters, buffers, modes nor random generators change.

    Args:
        model: A `Backbone`, a torchvision classifier, or any other module. Of a module that is no known classifier,
            the last layer counts as the head where it is linear; heads are left out.
        example_input: A batch that a model of another kind is run on once in evaluation mode, to take its layers in
            the order in which they are called. Without it they come in the order of definition.

    Raises:
        UsageError: It has no layer that can be matched.
    """
    keys: dict[int, str] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        keys.setdefault(id(tensor), key)
    name = type(model).__name__
    units = _units_of_known_model(model)
    if units is not None:
        return _require_layers(_read_units(name, units, keys, {}))
    order = {} if example_input is None else _record_call_order(model, example_input)
    whole = _read_units(name, _expand_model(model, order), keys, order)
    held = {facts.key for block in whole.blocks() for facts in block.loose.values()}
    held |= {facts.key for layer in whole.layers() for part in layer.with_norms() for facts in part.tensors.values()}
    rest = {key: tensor for key, tensor in model.state_dict(keep_vars=True).items() if keys[id(tensor)] not in held}
    unassigned_tensors = {key: _tensor_info(tensor, keys) for key, tensor in rest.items()}
    whole = dataclasses.replace(whole, loose={**whole.loose, **unassigned_tensors})
    return _require_layers(_without_head(whole))


@lru_cache(maxsize=128)
def outline_of(spec: BackboneSpec, image_size: int | None = None) -> Block:
    """Returns the outline of an architecture without building its weights; keys are those of `Backbone` ("units.I...").

    Args:
        spec: The architecture.
        image_size: Height and width in pixels; the architecture's own when None.

    Raises:
        UsageError: The arguments do not fit the architecture, or it has no layer that can be matched.
    """
    _, parts = build_on_meta_device(spec, default_image_size(spec) if image_size is None else image_size)
    state = unit_state_dict(parts)
    named = [(f"units.{index}", module) for index, (_, module) in enumerate(parts.units)]
    return _require_layers(_read_units(spec.text, named, {id(tensor): key for key, tensor in state.items()}, {}))


def _require_layers(outline: Block) -> Block:
    if not any(True for _ in outline.layers()):
        kinds = "convolution, normalisation or linear layer"
        raise UsageError(f"{outline.name} has no layer that can be matched: no {kinds} besides its head")
    return outline


def _units_of_known_model(model: nn.Module) -> list[NamedModule] | None:
    """Returns the units of a backbone or a torchvision classifier; None of another model."""
    if isinstance(model, Backbone):
        return [(f"units.{index}", unit) for index, unit in enumerate(model.units)]
    modes = [(module, module.training) for module in model.modules()]
    try:
        return decompose(model).units
    except (UsageError, TypeError, ValueError, AttributeError, IndexError):  # or a classifier that was rebuilt
        return None
    finally:
        for module, training in modes:
            module.training = training


def _expand_model(model: nn.Module, order: Mapping[int, int]) -> list[NamedModule]:
    """Returns the pieces of any model: containers opened, what has no weights joined to the piece before it."""
    named: list[NamedModule] = [("", model)]
    while len(named) == 1 and _layer_family(named[0][1]) is None and any(True for _ in named[0][1].children()):
        # A model that only wraps another is opened until there is more than one piece.
        [(name, module)] = named
        named = [
            piece
            for child, part in module.named_children()
            for piece in _expand_container(_join_names(name, child), part)
        ]
    return group(sorted(named, key=lambda item: _first_call(item[1], order)))


def _expand_container(name: str, module: nn.Module) -> Iterator[NamedModule]:
    """Yields the members of containers in their place; one of a layer and its normalisation alone stays whole."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and _layer_count(module) > 2:
        for child, part in module.named_children():
            yield from _expand_container(_join_names(name, child), part)
    else:
        yield name, module


def _join_names(name: str, child: str) -> str:
    return f"{name}.{child}".strip(".")


def _layer_count(module: nn.Module) -> int:
    return sum(_layer_family(part) is not None for part in module.modules())


def _without_head(outline: Block) -> Block:
    """Returns the outline without its last layer, where that is linear."""
    last = list(outline.layers())[-1:]
    if not last or last[0].family != LINEAR:
        return outline

    def cut(block: Block) -> Block:
        kept: list[Block | Layer] = []
        for child in block.children:
            if child is last[0]:
                kept += _assign_norms([*reversed(last[0].before)]) if last[0].before else ()
            elif isinstance(child, Layer):
                kept.append(child)
            elif (rest := cut(child)).children or rest.loose:
                kept.append(rest)
        return dataclasses.replace(block, children=tuple(kept))

    return cut(outline)


def _read_units(name: str, units: list[NamedModule], keys: Mapping[int, str], order: Mapping[int, int]) -> Block:
    seen: set[int] = set()
    blocks: list[Block] = []
    unassigned_tensors: dict[str, TensorInfo] = {}
    for unit_name, module in units:
        layers = list(_iter_layers(module, keys, seen, order))
        loose = {}
        for inside, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) in keys and id(tensor) not in seen:
                seen.add(id(tensor))
                loose[inside] = _tensor_info(tensor, keys)
        if layers:
            blocks.append(Block(unit_name, _assign_norms(layers), loose))
        else:
            unassigned_tensors |= {_join_names(unit_name, inside): facts for inside, facts in loose.items()}
    return Block(name, tuple(blocks), unassigned_tensors)


def _assign_norms(layers: list[Layer]) -> tuple[Layer, ...]:
    """Gives the normalisations of a unit to the layer before them; those at its beginning to its first layer."""
    heavy = [index for index, layer in enumerate(layers) if layer.family in _MATRIX_FAMILIES] or [0]
    ends = [*heavy[1:], len(layers)]
    taken = [
        dataclasses.replace(layers[start], after=tuple(layers[start + 1 : end]))
        for start, end in zip(heavy, ends, strict=True)
    ]
    taken[0] = dataclasses.replace(taken[0], before=tuple(reversed(layers[: heavy[0]])))
    return tuple(taken)


def _iter_layers(
    module: nn.Module, keys: Mapping[int, str], seen: set[int], order: Mapping[int, int]
) -> Iterator[Layer]:
    """Yields the layers of a unit whose tensors have not been seen before, and notes those tensors."""
    found = list(_iter_layer_modules(module))
    places = [_call_position(part, order) for part, _ in found]
    for index in range(1, len(places)):
        # What is never called itself, such as attention's own projection, stays behind what it is defined behind.
        places[index] = places[index - 1] if places[index] is None else places[index]
    for _, index in sorted((-1 if place is None else place, index) for index, place in enumerate(places)):
        part, family = found[index]
        prefix = "in_proj_" if isinstance(part, nn.MultiheadAttention) else ""
        tensors = {role: getattr(part, f"{prefix}{role}", None) for role in ("weight", "bias", *RUNNING_STATISTICS)}
        held = {role: tensor for role, tensor in tensors.items() if tensor is not None and id(tensor) in keys}
        if "weight" not in held or id(held["weight"]) in seen:
            continue
        seen.update(id(tensor) for tensor in held.values())
        facts = {role: _tensor_info(tensor, keys) for role, tensor in held.items()}
        # A unit may wrap modules under names of its own, so the key and not the path says what a layer is called.
        name_in_model = facts["weight"].key.rpartition(".")[0]
        fused = family == ATTENTION_IN and facts["weight"].shape[0] % 3 == 0
        yield Layer(name_in_model, family, facts, 3 if fused else 1)


def _iter_layer_modules(module: nn.Module, family: str | None = None) -> Iterator[tuple[nn.Module, str]]:
    """Yields layers with their families, in the order of definition."""
    family = family or _layer_family(module)
    if family is not None:
        yield module, family
        if not isinstance(module, nn.MultiheadAttention):
            return
    attends = isinstance(module, nn.MultiheadAttention) or any(hasattr(module, fused) for fused in _FUSED_QKV_NAMES)
    for child, part in module.named_children():
        role = None
        if attends and isinstance(part, nn.Linear):
            role = ATTENTION_IN if child in _FUSED_QKV_NAMES else ATTENTION_OUT
        yield from _iter_layer_modules(part, role)


def _layer_family(module: nn.Module) -> str | None:
    """Returns the family of a layer; None of what is none."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return DEPTHWISE if module.groups == module.in_channels > 1 else CONVOLUTION
    if isinstance(module, nn.Linear):
        return LINEAR
    if isinstance(module, nn.MultiheadAttention):
        return ATTENTION_IN
    return next((family for kind, family in _NORM_FAMILIES if isinstance(module, kind)), None)


def _tensor_info(tensor: torch.Tensor, keys: Mapping[int, str]) -> TensorInfo:
    return TensorInfo(keys[id(tensor)], tuple(tensor.shape), isinstance(tensor, nn.Parameter))


def _call_position(module: nn.Module, order: Mapping[int, int]) -> int | None:
    return order.get(id(module))


def _first_call(module: nn.Module, order: Mapping[int, int]) -> int:
    """Returns when the first layer of a module is called; all alike where that is not known."""
    return min((order[id(part)] for part in module.modules() if id(part) in order), default=len(order))


@torch.no_grad()
def _record_call_order(model: nn.Module, example_input: torch.Tensor) -> dict[int, int]:
    """Returns when each layer is called first, by its identity."""
    order: dict[int, int] = {}

    def note(module: nn.Module, *_: Any) -> None:
        order.setdefault(id(module), len(order))

    modes = [(module, module.training) for module in model.modules()]
    hooks = [part.register_forward_pre_hook(note) for part in model.modules() if _layer_family(part) is not None]
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()(example_input)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return order
