"""Layers whose per-sample gradients follow from inputs and output gradients: linear, convolution, normalisation.

For one sample the gradient of such a layer's weight is `sum_t g_t a_t'` over its positions t (1 for a linear layer on
vectors, H W for a convolution, the positions of all calls for a layer that is called repeatedly), with a the input
patch and g the gradient of the layer's output. So per-sample gradients and Kronecker factors need only a and g; no
gradients of weights are computed. See `nbt.transfer.curvature.layer_calls` for the recording of a and g.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Number of elements of a working buffer: patches that fit into a CPU's cache are faster to build and multiply.
_PATCH_BUFFER_ELEMENTS = 1 << 21
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True, eq=False)
class GradientLayer(ABC):
    """A module with the names of those of its parameters that require gradients.

    Attributes:
        module: The module, in evaluation mode.
        weight: Name of its weight in the model; None if it requires no gradient.
        bias: Name of its bias in the model; None if it requires no gradient or does not exist.
    """

    module: nn.Module
    weight: str | None
    bias: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, weight first."""
        return tuple(name for name in (self.weight, self.bias) if name is not None)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by name."""
        return {name: self.module.get_parameter(name.rpartition(".")[2]) for name in self.names}

    @property
    def numel(self) -> int:
        """Number of trainable elements."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @abstractmethod
    def per_sample(self, inputs: Tensor, gradients: Tensor, n: int) -> dict[str, Tensor]:
        """Returns the per-sample gradients of every parameter by name, (n, *shape).

        Args:
            inputs: Inputs of the module, (B, ...), with B a multiple of n and the samples in order.
            gradients: Gradients of the module's output.
            n: Number of samples.
        """


class KroneckerLayer(GradientLayer):
    """A layer with one weight matrix per group, (outputs, inputs), with the bias as its last column."""

    @property
    def groups(self) -> int:
        """Number of weight matrices."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of groups, outputs per group, and inputs per group including the constant 1 of the bias."""
        weight = self.module.get_parameter("weight")
        outputs = weight.shape[0] // self.groups
        inputs = (weight[0].numel() if self.weight else 0) + (1 if self.bias else 0)
        return self.groups, outputs, inputs

    @abstractmethod
    def windows(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yields the input patches a, a few samples at a time, (b, channels, kernel H, W, positions H, W) each."""

    @abstractmethod
    def by_channel(self, gradients: Tensor) -> Tensor:
        """Returns the gradients g as (B, channels, positions)."""

    def add_input_gram(self, total: Tensor, inputs: Tensor) -> int:
        """Adds the sum of a a' over samples and positions to `total`, (groups, inputs, inputs), in place.

        Returns:
            The number of terms: samples times positions.
        """
        groups, _, size = self.shape
        terms = 0
        width = size - bool(self.bias)
        for windows in self.windows(inputs):
            count = windows.shape[0] * windows.shape[4] * windows.shape[5]
            terms += count
            if self.weight:
                columns = windows.permute(1, 2, 3, 0, 4, 5).reshape(groups, width, -1)
                total[:, :width, :width].baddbmm_(columns, columns.mT)
            if self.weight and self.bias:
                sums = columns.sum(dim=2)
                total[:, :width, width] += sums
                total[:, width, :width] += sums
            if self.bias:
                total[:, width, width] += count
        return terms

    def add_gradient_gram(self, total: Tensor, gradients: Tensor) -> None:
        """Adds the sum of g g' over samples and positions to `total`, (groups, outputs, outputs), in place."""
        values = self.by_channel(gradients)
        groups, rows, _ = self.shape
        if rows == 1:
            total += torch.linalg.vector_norm(values, dim=(0, 2)).square()[:, None, None]
            return
        columns = values.transpose(0, 1).reshape(groups, rows, -1)
        total.baddbmm_(columns, columns.mT)

    def per_sample(self, inputs: Tensor, gradients: Tensor, n: int) -> dict[str, Tensor]:
        """Returns the per-sample gradients of every parameter by name, (n, *shape)."""
        per_sample = {}
        grouped = self.by_channel(gradients).unflatten(1, (self.groups, -1))  # (B, groups, outputs, positions)
        if self.weight:
            shape = self.module.get_parameter("weight").shape
            start, products = 0, []
            for windows in self.windows(inputs):
                patches = windows.reshape(len(windows), self.groups, -1, grouped.shape[3])
                products.append(grouped[start : start + len(patches)] @ patches.mT)
                start += len(patches)
            per_sample[self.weight] = _sum_repeats(torch.cat(products), n).reshape(n, *shape)
        if self.bias:
            per_sample[self.bias] = _sum_repeats(grouped.sum(dim=3), n).reshape(n, -1)
        return per_sample


class LinearLayer(KroneckerLayer):
    """`nn.Linear` on (B, inputs) or (B, ..., inputs)."""

    def windows(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yields the inputs, (B, inputs, 1, 1, 1, positions)."""
        yield self.by_channel(inputs)[:, :, None, None, None]

    def by_channel(self, gradients: Tensor) -> Tensor:
        """Returns values as (B, channels, positions)."""
        return gradients.reshape(len(gradients), -1, gradients.shape[-1]).mT


class ConvLayer(KroneckerLayer):
    """`nn.Conv2d` with any stride, padding, dilation and groups."""

    module: nn.Conv2d

    @property
    def groups(self) -> int:
        """Number of weight matrices."""
        return int(self.module.groups)

    def windows(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yields views of the padded inputs, which take no memory until they are reshaped for a product."""
        conv = self.module
        stride, kernel = conv.stride, conv.kernel_size
        if kernel == (1, 1) and not any(conv._reversed_padding_repeated_twice):
            yield inputs[:, :, None, None, :: stride[0], :: stride[1]]
            return
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        elements = inputs[0].numel() * kernel[0] * kernel[1] // (stride[0] * stride[1])
        for chunk in inputs.split(max(1, _PATCH_BUFFER_ELEMENTS // max(1, elements))):
            views = F.pad(chunk.contiguous(), conv._reversed_padding_repeated_twice, mode)
            for axis, (size, step, gap) in enumerate(zip(kernel, stride, conv.dilation, strict=True)):
                views = views.unfold(2 + axis, (size - 1) * gap + 1, step)[..., ::gap]
            yield views.permute(0, 1, 4, 5, 2, 3)

    def by_channel(self, gradients: Tensor) -> Tensor:
        """Returns the gradients as (B, channels, positions)."""
        return gradients.flatten(2)


class NormLayer(GradientLayer):
    """The scale (gamma) and shift (beta) of a batch, instance, group or layer normalisation in evaluation mode."""

    def per_sample(self, inputs: Tensor, gradients: Tensor, n: int) -> dict[str, Tensor]:
        """Returns the per-sample gradients of gamma and beta, (n, C)."""
        per_sample = {}
        gradients = self._by_channel(gradients)
        shift = gradients.sum(dim=2)
        if self.weight:
            per_sample[self.weight] = _sum_repeats(self._scale(inputs, gradients, shift), n)
        if self.bias:
            per_sample[self.bias] = _sum_repeats(shift, n)
        return per_sample

    def _scale(self, inputs: Tensor, gradients: Tensor, shift: Tensor) -> Tensor:
        """Returns the gradient of gamma, (B, C): the sum over positions of g times the normalised input."""
        norm = self.module
        if isinstance(norm, _BATCH_NORMS):
            mean, var = norm.running_mean, norm.running_var
            assert mean is not None and var is not None
            products = (gradients * self._by_channel(inputs)).sum(dim=2)
            return (products - mean * shift) * torch.rsqrt(var + norm.eps)
        if isinstance(norm, nn.GroupNorm):
            normal = F.group_norm(inputs, norm.num_groups, eps=norm.eps)
        elif isinstance(norm, _INSTANCE_NORMS):
            use_input_stats = norm.running_mean is None
            normal = F.instance_norm(
                inputs, norm.running_mean, norm.running_var, use_input_stats=use_input_stats, eps=norm.eps
            )
        else:
            assert isinstance(norm, nn.LayerNorm)
            if self._channels_first:
                inputs = inputs.movedim(1, -1)
            normal = F.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
            normal = normal.movedim(-1, 1)
        return (gradients * normal.reshape_as(gradients)).sum(dim=2)

    @property
    def _channels_first(self) -> bool:
        return not isinstance(self.module, nn.LayerNorm) or type(self.module).__name__ == "LayerNorm2d"

    def _by_channel(self, values: Tensor) -> Tensor:
        """Returns values as (B, C, positions)."""
        values = values if self._channels_first else values.movedim(-1, 1)
        return values.reshape(*values.shape[:2], -1)


def find_layers(model: nn.Module) -> list[GradientLayer]:
    """Returns the supported layers of a model, in its order, whose trainable parameters are not shared.

    Other kinds of modules, the parts of `nn.MultiheadAttention`, and subclasses, whose forward pass may differ, are not
    included.
    """
    n_uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    layers: list[GradientLayer] = []
    for prefix, module in model.named_modules():
        layer_class = _layer_class(module)
        if layer_class is None:
            continue
        names = {
            name: f"{prefix}.{name}".lstrip(".")
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad and n_uses[id(parameter)] == 1
        }
        if names:
            layers.append(layer_class(module, names.get("weight"), names.get("bias")))
    return layers


def _layer_class(module: nn.Module) -> type[GradientLayer] | None:
    """Returns the layer class of a module; None if it is not supported."""
    if type(module) is nn.Linear:
        return LinearLayer
    if type(module) is nn.Conv2d:
        return ConvLayer
    if type(module) in (*_BATCH_NORMS, *_INSTANCE_NORMS, nn.GroupNorm):
        return NormLayer
    # Subclasses of these names in torchvision and timm are layer normalisations over axis 1 or the last axis.
    if isinstance(module, nn.LayerNorm) and type(module).__name__ in ("LayerNorm", "LayerNorm2d"):
        return NormLayer if len(module.normalized_shape) == 1 else None
    return None


def _sum_repeats(values: Tensor, n: int) -> Tensor:
    """Sums B / n successive rows of values (B, ...): (n, ...)."""
    return values if len(values) == n else values.unflatten(0, (n, -1)).sum(dim=1)
