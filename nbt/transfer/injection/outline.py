"""Outlines: the description of an architecture that TLI matches, as units of layers in order from the input.

The units are those of `nbt.models.units`. Matching uses units instead of a library's module tree, because units are of
the same kind in every family (the smallest piece that passes on a single tensor), are in the order of execution, and
contain no heads, whereas the nesting of a module tree is arbitrary. Models that are not known backbones are read by
their module tree, with plain containers expanded.

A layer has filters or a matrix, and includes the adjacent normalisations: they scale its values, and their shapes carry
no additional information. Counted like this, the two similarities given in the paper are reproduced to within .005.

An outline holds names and shapes only, so models on the meta device are supported.
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
# Names of attention projections that hold queries, keys and values in one matrix.
_FUSED_QKV_NAMES = ("qkv", "to_qkv")
RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Signature = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """One tensor of a layer.

    Attributes:
        key: Key in the model's state dict.
        shape: Shape of the tensor.
        trained: Whether it is a parameter and not a buffer.
    """

    key: str
    shape: tuple[int, ...]
    trained: bool


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer, which can be matched with layers of the same family.

    Attributes:
        name: Name in the model.
        family: "convolution", "depthwise convolution" (each filter has one input channel), "linear", "attention in"
            (queries, keys and values), "attention out", or a kind of normalisation in units without other layers.
        tensors: Tensors by role: "weight", "bias", "running_mean", "running_var", "num_batches_tracked".
        parts: Number of matrices stacked along the weight's first dimension: 3 for fused attention, else 1.
        before: Normalisations before the first layer of the unit, the nearest first.
        after: Normalisations between this layer and the next, the nearest first.
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
        """The properties that matching depends on."""
        return (self.family, self.shape)

    def layers(self) -> Iterator[Layer]:
        """Yields the layer itself."""
        yield self

    def with_norms(self) -> Iterator[Layer]:
        """Yields the layer and its normalisations, in order."""
        yield from (*reversed(self.before), self, *self.after)


@dataclass(frozen=True, eq=False)
class Block:
    """A unit, or a whole network.

    Attributes:
        name: Name in the model.
        children: Its layers or units, in order from the input.
        unassigned: Tensors that belong to no layer (class token, position embeddings, layer scales), by name inside the
            block.
    """

    name: str
    children: tuple[Block | Layer, ...]
    unassigned: Mapping[str, TensorInfo] = field(default_factory=dict)

    @cached_property
    def signature(self) -> Signature:
        """The properties that matching depends on."""
        return tuple(child.signature for child in self.children)

    def layers(self) -> Iterator[Layer]:
        """Yields the layers in order, without their normalisations."""
        for child in self.children:
            yield from child.layers()

    def blocks(self) -> Iterator[Block]:
        """Yields the block itself and the blocks inside it."""
        yield self
        for child in self.children:
            if isinstance(child, Block):
                yield from child.blocks()


def read_outline(model: nn.Module, example_input: torch.Tensor | None = None) -> Block:
    """Reads the outline of a model without changing parameters, buffers, modes or random generators.

    Args:
        model: A `Backbone`, a torchvision classifier, or any other module. Heads are left out; for modules of other
            kinds the last layer is the head if it is linear.
        example_input: A batch on which a model of another kind is run once in evaluation mode, to order its layers by
            their first call. Without it they are in the order of definition.

    Raises:
        UsageError: The model has no layer that can be matched.
    """
    keys: dict[int, str] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        keys.setdefault(id(tensor), key)
    name = type(model).__name__
    units = _units_of_known_model(model)
    if units is not None:
        return _require_layers(_read_units(name, units, keys, {}))
    order = {} if example_input is None else _record_call_order(model, example_input)
    outline = _read_units(name, _expand_model(model, order), keys, order)
    known = {info.key for block in outline.blocks() for info in block.unassigned.values()}
    known |= {info.key for layer in outline.layers() for part in layer.with_norms() for info in part.tensors.values()}
    others = {
        key: _tensor_info(tensor, keys)
        for key, tensor in model.state_dict(keep_vars=True).items()
        if keys[id(tensor)] not in known
    }
    outline = dataclasses.replace(outline, unassigned={**outline.unassigned, **others})
    return _require_layers(_without_head(outline))


@lru_cache(maxsize=128)
def outline_of(spec: BackboneSpec, image_size: int | None = None) -> Block:
    """Returns the outline of an architecture without allocating its weights.

    Keys are those of `Backbone` ("units.I...").

    Args:
        spec: The architecture.
        image_size: Height and width in pixels; the architecture's default when None.

    Raises:
        UsageError: The arguments do not fit the architecture, or it has no layer that can be matched.
    """
    _, parts = build_on_meta_device(spec, default_image_size(spec) if image_size is None else image_size)
    state = unit_state_dict(parts)
    named = [(f"units.{index}", module) for index, (_, module) in enumerate(parts.units)]
    return _require_layers(_read_units(spec.text, named, {id(tensor): key for key, tensor in state.items()}, {}))


def _require_layers(outline: Block) -> Block:
    """Returns the outline; raises UsageError if it has no layer."""
    if not any(True for _ in outline.layers()):
        kinds = "convolution, normalisation or linear layer"
        raise UsageError(f"{outline.name} has no layer that can be matched: no {kinds} besides its head")
    return outline


def _units_of_known_model(model: nn.Module) -> list[NamedModule] | None:
    """Returns the units of a backbone or a torchvision classifier; None for other models."""
    if isinstance(model, Backbone):
        return [(f"units.{index}", unit) for index, unit in enumerate(model.units)]
    modes = [(module, module.training) for module in model.modules()]
    try:
        return decompose(model).units
    except (UsageError, TypeError, ValueError, AttributeError, IndexError):  # e.g. a modified classifier
        return None
    finally:
        for module, training in modes:
            module.training = training


def _expand_model(model: nn.Module, order: Mapping[int, int]) -> list[NamedModule]:
    """Returns the pieces of any model: containers are expanded, modules without weights joined to the piece before."""
    named: list[NamedModule] = [("", model)]
    while len(named) == 1 and _layer_family(named[0][1]) is None and any(True for _ in named[0][1].children()):
        # A model that only wraps another is expanded until there is more than one piece.
        [(name, module)] = named
        named = [
            piece
            for child, part in module.named_children()
            for piece in _expand_container(_join_names(name, child), part)
        ]
    return group(sorted(named, key=lambda item: _first_call(item[1], order)))


def _expand_container(name: str, module: nn.Module) -> Iterator[NamedModule]:
    """Yields the members of containers; a container of one layer with its normalisation is not expanded."""
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
    """Returns the outline without its last layer, if that layer is linear."""
    layers = list(outline.layers())
    if not layers or layers[-1].family != LINEAR:
        return outline
    head = layers[-1]

    def remove_head(block: Block) -> Block:
        kept: list[Block | Layer] = []
        for child in block.children:
            if child is head:
                kept += _assign_norms([*reversed(head.before)]) if head.before else ()
            elif isinstance(child, Layer):
                kept.append(child)
            elif (rest := remove_head(child)).children or rest.unassigned:
                kept.append(rest)
        return dataclasses.replace(block, children=tuple(kept))

    return remove_head(outline)


def _read_units(name: str, units: list[NamedModule], keys: Mapping[int, str], order: Mapping[int, int]) -> Block:
    """Reads the outline of a network from its units.

    Args:
        name: Name of the network.
        units: Names and modules of the units, in order.
        keys: Key in the state dict by the identity of the tensor.
        order: Position of the first call by the identity of the module; empty for the order of definition.
    """
    seen: set[int] = set()
    blocks: list[Block] = []
    outside_blocks: dict[str, TensorInfo] = {}
    for unit_name, module in units:
        layers = list(_iter_layers(module, keys, seen, order))
        unassigned = {}
        for inside, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) in keys and id(tensor) not in seen:
                seen.add(id(tensor))
                unassigned[inside] = _tensor_info(tensor, keys)
        if layers:
            blocks.append(Block(unit_name, _assign_norms(layers), unassigned))
        else:
            outside_blocks |= {_join_names(unit_name, inside): info for inside, info in unassigned.items()}
    return Block(name, tuple(blocks), outside_blocks)


def _assign_norms(layers: list[Layer]) -> tuple[Layer, ...]:
    """Assigns the normalisations of a unit to the layer before them, and those at its beginning to its first layer."""
    weighted = [index for index, layer in enumerate(layers) if layer.family in _MATRIX_FAMILIES] or [0]
    ends = [*weighted[1:], len(layers)]
    with_norms = [
        dataclasses.replace(layers[start], after=tuple(layers[start + 1 : end]))
        for start, end in zip(weighted, ends, strict=True)
    ]
    with_norms[0] = dataclasses.replace(with_norms[0], before=tuple(reversed(layers[: weighted[0]])))
    return tuple(with_norms)


def _iter_layers(
    module: nn.Module, keys: Mapping[int, str], seen: set[int], order: Mapping[int, int]
) -> Iterator[Layer]:
    """Yields the layers of a unit whose tensors have not been seen before, and records those tensors in `seen`."""
    layer_modules = list(_iter_layer_modules(module))
    positions = [_call_position(part, order) for part, _ in layer_modules]
    for index in range(1, len(positions)):
        # Modules that are never called, such as attention's input projection, follow the module defined before them.
        positions[index] = positions[index - 1] if positions[index] is None else positions[index]
    for _, index in sorted((-1 if position is None else position, index) for index, position in enumerate(positions)):
        part, family = layer_modules[index]
        prefix = "in_proj_" if isinstance(part, nn.MultiheadAttention) else ""
        tensors = {role: getattr(part, f"{prefix}{role}", None) for role in ("weight", "bias", *RUNNING_STATISTICS)}
        stored = {role: tensor for role, tensor in tensors.items() if tensor is not None and id(tensor) in keys}
        if "weight" not in stored or id(stored["weight"]) in seen:
            continue
        seen.update(id(tensor) for tensor in stored.values())
        infos = {role: _tensor_info(tensor, keys) for role, tensor in stored.items()}
        # Units may rename the modules inside them, so the layer's name is taken from the state-dict key.
        name_in_model = infos["weight"].key.rpartition(".")[0]
        fused = family == ATTENTION_IN and infos["weight"].shape[0] % 3 == 0
        yield Layer(name_in_model, family, infos, 3 if fused else 1)


def _iter_layer_modules(module: nn.Module, family: str | None = None) -> Iterator[tuple[nn.Module, str]]:
    """Yields layer modules with their families, in the order of definition."""
    family = family or _layer_family(module)
    if family is not None:
        yield module, family
        if not isinstance(module, nn.MultiheadAttention):
            return
    is_attention = isinstance(module, nn.MultiheadAttention) or any(
        hasattr(module, fused) for fused in _FUSED_QKV_NAMES
    )
    for child, part in module.named_children():
        role = None
        if is_attention and isinstance(part, nn.Linear):
            role = ATTENTION_IN if child in _FUSED_QKV_NAMES else ATTENTION_OUT
        yield from _iter_layer_modules(part, role)


def _layer_family(module: nn.Module) -> str | None:
    """Returns the family of a layer; None for other modules."""
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
    """Returns the position of the first call inside a module; equal for all modules if the order is unknown."""
    return min((order[id(part)] for part in module.modules() if id(part) in order), default=len(order))


@torch.no_grad()
def _record_call_order(model: nn.Module, example_input: torch.Tensor) -> dict[int, int]:
    """Returns the position of each layer's first call, by the identity of the module."""
    order: dict[int, int] = {}

    def record(module: nn.Module, *_: Any) -> None:
        order.setdefault(id(module), len(order))

    modes = [(module, module.training) for module in model.modules()]
    hooks = [part.register_forward_pre_hook(record) for part in model.modules() if _layer_family(part) is not None]
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()(example_input)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return order
