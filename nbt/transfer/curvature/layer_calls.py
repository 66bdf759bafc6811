"""Records the inputs of layers and the gradients of their outputs during forward and backward passes of a model.

The layers are recorded by forward hooks, which are removed after the pass. A hook keeps the *edge* of the layer's
output in the graph instead of the tensor, so an in-place ReLU after the layer has no effect; because only gradients of
the edges are requested, autograd computes no gradients of weights.
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
# Maximum number of elements of the per-sample gradients in memory.
_MAX_BUFFERED_ELEMENTS = 1 << 23
# Tolerates the reduced precision of convolutions on a GPU.
_RELATIVE_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer.

    Attributes:
        layer: The layer.
        inputs: Its inputs, detached.
        edge: Edge of its output in the autograd graph.
    """

    layer: GradientLayer
    inputs: Tensor
    edge: GradientEdge


@dataclass(eq=False)
class ForwardPass:
    """The forward pass of one batch.

    Attributes:
        model: The model.
        arguments: Arguments of the call, samples first.
        calls: Calls of the recorded layers, in order.
        logits: (n, C).
        rest: Names of trainable parameters that belong to no recorded layer.
        by_layer: Indices of each layer's calls.
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
        """Returns whether a call's output is the logits."""
        return tuple(call.edge)[:2] == tuple(get_gradient_edge(self.logits))[:2]

    def backward(self, vectors: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
        """Yields the gradients of `sum(vector * logits)` with respect to the output of every call; None without a path.

        Args:
            vectors: Output vectors, (n, C) each.
        """
        edges = [call.edge for call in self.calls]
        for index, vector in enumerate(vectors):
            if not edges:
                yield []
                continue
            retain_graph = index + 1 < len(vectors)
            yield list(torch.autograd.grad(self.logits, edges, vector, retain_graph=retain_graph, allow_unused=True))

    def per_sample(
        self, layer: GradientLayer, gradients: Sequence[Tensor | None], start: int, stop: int
    ) -> dict[str, Tensor]:
        """Returns per-sample gradients of a layer's parameters, (stop - start, *shape), summed over its calls."""
        total: dict[str, Tensor] = {}
        for index in self.by_layer[layer]:
            gradient = gradients[index]
            if gradient is None:
                continue
            inputs, repeats = self.calls[index].inputs, len(gradient) // len(self)
            rows = slice(start * repeats, stop * repeats)
            for name, value in layer.per_sample(inputs[rows], gradient[rows], stop - start).items():
                total[name] = total[name] + value if name in total else value
        for name, parameter in layer.parameters.items():
            if name not in total:
                total[name] = parameter.new_zeros(stop - start, *parameter.shape)
        return total

    def rest_per_sample(self, vector: Tensor, start: int, stop: int) -> dict[str, Tensor]:
        """Returns per-sample gradients of the parameters outside layers, (stop - start, *shape), by torch.func."""
        samples, others = self.arguments[0], self.arguments[1:]
        parameters = {name: self.model.get_parameter(name).detach() for name in self.rest}

        def output(values: dict[str, Tensor], sample: Tensor, direction: Tensor) -> Tensor:
            logits = functional_call(self.model, values, (sample[None], *others))
            return (logits[0] * direction).sum()  # type: ignore[no-any-return]

        try:
            # Fused attention kernels have no vmap rule, so each sample would be computed separately.
            with sdpa_kernel(SDPBackend.MATH):
                gradients = vmap(grad(output), (None, 0, 0))(parameters, samples[start:stop], vector[start:stop])
        except (RuntimeError, ValueError) as error:
            if out_of_memory(error):
                raise
            raise UsageError(
                f"curvature: torch.func cannot differentiate this model with respect to {self.rest[0]}; freeze this "
                f"parameter or use another backbone ({str(error).splitlines()[0]})"
            ) from error
        return gradients  # type: ignore[no-any-return]

    def chunks(self, numel: int) -> Iterator[tuple[int, int]]:
        """Yields ranges of samples whose per-sample gradients, of `numel` elements each, fit into the memory limit."""
        step = max(1, _MAX_BUFFERED_ELEMENTS // max(1, numel))
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))


def run_forward_passes(model: nn.Module, batches: Iterable[Batch]) -> Iterator[ForwardPass]:
    """Runs a model on batches; the model is not modified.

    Args:
        model: A model in evaluation mode, from samples to logits, (n, C).
        batches: Samples, (n, ...), or tuples of samples and further arguments.

    Raises:
        UsageError: A module is in training mode or normalises by the batch, no parameter requires gradients, or there
            is no batch.
    """
    parameters = trainable_parameters(model)
    check_eval_mode(model)
    device = next(model.parameters()).device
    remaining = iter(_to_arguments(batch, device) for batch in batches)
    first = next(remaining, None)
    if first is None:
        raise UsageError("curvature: there are no images to estimate it on")
    layers = verified_layers(model, first)
    covered = {name for layer in layers for name in layer.names}
    rest = tuple(name for name in parameters if name not in covered)
    for arguments in chain([first], remaining):
        yield _forward(model, arguments, layers, rest)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that require gradients, by name.

    Raises:
        UsageError: There are none.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise UsageError("curvature: no parameter of the model trains; unfreeze some")
    return parameters


def check_eval_mode(model: nn.Module) -> None:
    """Checks that the outputs of a sample depend neither on the other samples of a batch nor on random numbers.

    Raises:
        UsageError: A module is in training mode or normalises by the batch.
    """
    for name, module in model.named_modules():
        if module.training:
            raise UsageError(f"curvature: {name or 'the model'} is in training mode; call model.eval() first")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UsageError(f"curvature: {name} has no running statistics, so samples depend on their batch")


def verified_layers(model: nn.Module, arguments: tuple[Any, ...]) -> list[GradientLayer]:
    """Returns the layers whose gradients, computed from inputs and output gradients, agree with autograd.

    Two samples are run, with a gradient for the first only. This detects layers whose weight is also used elsewhere,
    layers that are never called, and layers whose inputs are not ordered by samples; their parameters are treated as
    parameters outside layers.
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
    autograd_gradients = torch.autograd.grad(
        probe.logits, list(parameters.values()), vector, retain_graph=True, allow_unused=True
    )
    expected = dict(zip(parameters, autograd_gradients, strict=True))
    (gradients,) = probe.backward([vector])
    return [layer for layer in layers if _matches_autograd(probe, layer, gradients, expected)]


def _matches_autograd(
    probe: ForwardPass, layer: GradientLayer, gradients: Sequence[Tensor | None], expected: Mapping[str, Tensor | None]
) -> bool:
    calls = probe.by_layer.get(layer, [])
    if not calls or any(len(probe.calls[index].inputs) % len(probe) for index in calls):
        return False
    try:
        per_sample = probe.per_sample(layer, gradients, 0, len(probe))
    except (RuntimeError, IndexError) as error:  # unusual shapes
        if out_of_memory(error):
            raise
        return False
    # Summed over the layer, because a bias before an instance normalisation has a gradient of rounding errors only.
    squared_error, squared_norm = 0.0, 0.0
    for name, value in per_sample.items():
        reference = expected[name]
        reference = torch.zeros_like(value[0]) if reference is None else reference
        squared_error += float((value[0] - reference).square().sum())
        squared_norm += float(reference.square().sum())
        if value[1].any():
            return False
    return squared_error <= _RELATIVE_TOLERANCE**2 * squared_norm


def _to_arguments(batch: Batch, device: torch.device) -> tuple[Any, ...]:
    values = batch if isinstance(batch, tuple) else (batch,)
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in values)


def _forward(
    model: nn.Module, arguments: tuple[Any, ...], layers: Sequence[GradientLayer], rest: tuple[str, ...]
) -> ForwardPass:
    with torch.enable_grad(), record_layer_calls(layers) as calls:
        logits = model(*arguments)
    return ForwardPass(model, arguments, calls, logits, rest)


@contextmanager
def record_layer_calls(layers: Sequence[GradientLayer]) -> Iterator[list[LayerCall]]:
    """Records the calls of layers inside the context."""
    calls: list[LayerCall] = []

    def make_hook(layer: GradientLayer) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return None
            # An in-place operation on a view rewrites the preceding graph; on a copy it does not.
            result = output.clone() if output._is_view() else output
            inputs = args[0] if args else kwargs["input"]
            calls.append(LayerCall(layer, inputs.detach(), get_gradient_edge(result)))
            return result

        return record

    handles = [layer.module.register_forward_hook(make_hook(layer), with_kwargs=True) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
