"""Inputs of layers and gradients of their outputs, from ordinary forward and backward passes of a model.

The layers are watched by forward hooks, which go with the pass. A hook keeps the *edge* of the layer's output in the
graph and not the tensor, so an in-place ReLU behind the layer changes nothing; and since only the edges are asked for,
autograd computes no gradient of any weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from nbt.devices import out_of_memory
from nbt.errors import UsageError
from nbt.transfer.curvature.layer_gradients import GradientLayer, find_layers

Batch = Tensor | tuple[Any, ...]
# Elements of the per-sample gradients that are held at a time.
_MAX_BUFFERED_ELEMENTS = 1 << 23
# Wide enough for the reduced precision of convolutions on a GPU.
_RELATIVE_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer: what it got, and where in the graph its output is."""

    layer: GradientLayer
    inputs: Tensor
    edge: GradientEdge


@dataclass(eq=False)
class ForwardPass:
    """One batch's forward pass.

    Attributes:
        model: The model.
        arguments: What it was called with, samples first.
        calls: Of the watched layers, in the order of the pass.
        logits: (n, C).
        rest: Names of trainable parameters that are in no watched layer.
    """

    model: nn.Module
    arguments: tuple[Any, ...]
    calls: list[LayerCall]
    logits: Tensor
    rest: tuple[str, ...]
    by_layer: dict[GradientLayer, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_layer = defaultdict(list)
        for index, call in enumerate(self.calls):
            self.by_layer[call.layer].append(index)

    def __len__(self) -> int:
        return len(self.logits)

    def is_output(self, call: LayerCall) -> bool:
        """Whether a call's output is the logits themselves."""
        return tuple(call.edge)[:2] == tuple(get_gradient_edge(self.logits))[:2]

    def backward(self, vectors: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
        """Yields the gradients of `sum(vector * logits)` for every call's output; None where there is no path.

        Args:
            vectors: Each (n, C).
        """
        edges = [call.edge for call in self.calls]
        for index, vector in enumerate(vectors):
            if not edges:
                yield []
                continue
            more = index + 1 < len(vectors)
            yield list(torch.autograd.grad(self.logits, edges, vector, retain_graph=more, allow_unused=True))

    def per_sample(
        self, layer: GradientLayer, gradients: Sequence[Tensor | None], start: int, stop: int
    ) -> dict[str, Tensor]:
        """Returns the samples' gradients of a layer's parameters, (stop - start, *shape), summed over its calls."""
        total: dict[str, Tensor] = {}
        for index in self.by_layer[layer]:
            gradient = gradients[index]
            if gradient is None:
                continue
            inputs, repeats = self.calls[index].inputs, len(gradient) // len(self)
            part = slice(start * repeats, stop * repeats)
            for name, value in layer.per_sample(inputs[part], gradient[part], stop - start).items():
                total[name] = total[name] + value if name in total else value
        for name, parameter in layer.parameters.items():
            if name not in total:
                total[name] = parameter.new_zeros(stop - start, *parameter.shape)
        return total

    def rest_per_sample(self, vector: Tensor, start: int, stop: int) -> dict[str, Tensor]:
        """Returns the samples' gradients of the parameters in no layer, (stop - start, *shape), by torch.func."""
        samples, others = self.arguments[0], self.arguments[1:]
        parameters = {name: self.model.get_parameter(name).detach() for name in self.rest}

        def output(values: dict[str, Tensor], sample: Tensor, direction: Tensor) -> Tensor:
            logits = functional_call(self.model, values, (sample[None], *others))
            return (logits[0] * direction).sum()  # type: ignore[no-any-return]

        try:
            # The fused kernels of attention have no rule for vmap: each sample would go by itself.
            with sdpa_kernel(SDPBackend.MATH):
                found = vmap(grad(output), (None, 0, 0))(parameters, samples[start:stop], vector[start:stop])
        except (RuntimeError, ValueError) as error:
            if out_of_memory(error):
                raise
            raise UsageError(
                f"curvature: torch.func cannot differentiate this model by {self.rest[0]}; freeze this parameter or "
                f"use another backbone ({str(error).splitlines()[0]})"
            ) from error
        return found  # type: ignore[no-any-return]

    def chunks(self, numel: int) -> Iterator[tuple[int, int]]:
        """Yields ranges of samples whose per-sample gradients, of `numel` elements each, fit the working memory."""
        step = max(1, _MAX_BUFFERED_ELEMENTS // max(1, numel))
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))


def run_forward_passes(model: nn.Module, batches: Iterable[Batch]) -> Iterator[ForwardPass]:
    """Runs a model on batches; the model is as before after each.

    Args:
        model: In evaluation mode, from samples to logits, (n, C).
        batches: Samples, (n, ...), or tuples of samples and further arguments.

    Raises:
        UsageError: A module is in training mode or normalises by the batch, nothing trains, or there is no batch.
    """
    names = trainable_parameters(model)
    check_eval_mode(model)
    place = next(model.parameters()).device
    stream = iter(_to_arguments(batch, place) for batch in batches)
    first = next(stream, None)
    if first is None:
        raise UsageError("curvature: there are no images to estimate it on")
    layers = verified_layers(model, first)
    covered = {name for layer in layers for name in layer.names}
    rest = tuple(name for name in names if name not in covered)
    for arguments in chain([first], stream):
        yield _forward(model, arguments, layers, rest)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that train, by name.

    Raises:
        UsageError: There are none.
    """
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not found:
        raise UsageError("curvature: no parameter of the model trains; unfreeze some")
    return found


def check_eval_mode(model: nn.Module) -> None:
    """Raises UsageError if samples of a batch would depend on each other or on chance."""
    for name, module in model.named_modules():
        if module.training:
            raise UsageError(f"curvature: {name or 'the model'} is in training mode; call model.eval() first")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UsageError(f"curvature: {name} has no running statistics, so samples depend on their batch")


def verified_layers(model: nn.Module, arguments: tuple[Any, ...]) -> list[GradientLayer]:
    """Returns the layers whose gradients, made of inputs and outputs' gradients, are those of autograd.

    Two samples are run, with a gradient that enters at the first only. A layer whose weight is also used elsewhere,
    that is never called, or whose inputs are not ordered by samples, is found out and left to the other parameters.
    """
    layers = find_layers(model)
    samples = arguments[0][:2]
    samples = samples if len(samples) == 2 else torch.cat([samples, samples])
    probe = _forward(model, (samples, *arguments[1:]), layers, ())
    vector = torch.zeros_like(probe.logits)
    vector[0] = torch.linspace(1, 2, vector.shape[1])
    parameters = {name: parameter for layer in layers for name, parameter in layer.parameters.items()}
    if not parameters:
        return []
    true = torch.autograd.grad(probe.logits, list(parameters.values()), vector, retain_graph=True, allow_unused=True)
    expected = dict(zip(parameters, true, strict=True))
    (gradients,) = probe.backward([vector])
    return [layer for layer in layers if _matches_autograd(probe, layer, gradients, expected)]


def _matches_autograd(
    probe: ForwardPass, layer: GradientLayer, gradients: Sequence[Tensor | None], expected: Mapping[str, Tensor | None]
) -> bool:
    calls = probe.by_layer.get(layer, [])
    if not calls or any(len(probe.calls[index].inputs) % len(probe) for index in calls):
        return False
    try:
        ours = probe.per_sample(layer, gradients, 0, len(probe))
    except (RuntimeError, IndexError) as raised:  # unusual shapes
        if out_of_memory(raised):
            raise
        return False
    # Over the whole layer: a bias alone may have no gradient but rounding, before an instance normalisation for one.
    error, size = 0.0, 0.0
    for name, value in ours.items():
        true = expected[name]
        true = torch.zeros_like(value[0]) if true is None else true
        error += float((value[0] - true).square().sum())
        size += float(true.square().sum())
        if value[1].any():
            return False
    return error <= _RELATIVE_TOLERANCE**2 * size


def _to_arguments(batch: Batch, place: torch.device) -> tuple[Any, ...]:
    values = batch if isinstance(batch, tuple) else (batch,)
    return tuple(value.to(place) if isinstance(value, Tensor) else value for value in values)


def _forward(
    model: nn.Module, arguments: tuple[Any, ...], layers: Sequence[GradientLayer], rest: tuple[str, ...]
) -> ForwardPass:
    with torch.enable_grad(), record_layer_calls(layers) as calls:
        logits = model(*arguments)
    return ForwardPass(model, arguments, calls, logits, rest)


@contextmanager
def record_layer_calls(layers: Sequence[GradientLayer]) -> Iterator[list[LayerCall]]:
    """Collects the calls of layers while it is open."""
    calls: list[LayerCall] = []

    def hook_of(layer: GradientLayer) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return None
            # An operation in place on a view rewrites the graph before it; on a copy it does not.
            kept = output.clone() if output._is_view() else output
            inputs = args[0] if args else kwargs["input"]
            calls.append(LayerCall(layer, inputs.detach(), get_gradient_edge(kept)))
            return kept

        return keep

    handles = [layer.module.register_forward_hook(hook_of(layer), with_kwargs=True) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
