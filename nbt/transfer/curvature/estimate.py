"""Estimates the exact, K-FAC or diagonal curvature of a loss from forward and backward passes.

H is the sum over samples of J'J: the Hessian of 1/2 sum ||f - target||^2 for a model that is linear in its parameters,
and the Gauss-Newton matrix for any other model. It needs no labels. With "fisher" it is the Fisher matrix of
cross-entropy. As the penalty that represents unavailable data, an exact curvature makes continual training of a
linearised model equal to joint training; see `nbt.transfer.quadratic_penalty`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nbt.errors import UsageError, nearest
from nbt.transfer.curvature.kfac import KfacCurvature, add_rest_squares, estimate_kfac, kfac_numel
from nbt.transfer.curvature.layer_calls import Batch, ForwardPass, run_forward_passes, trainable_parameters
from nbt.transfer.curvature.layer_gradients import GradientLayer, LinearLayer, find_layers
from nbt.transfer.curvature.matrices import Curvature, DiagonalCurvature, ExactCurvature
from nbt.transfer.curvature.output_vectors import OutputVectors

__all__ = [
    "Curvature",
    "DiagonalCurvature",
    "ExactCurvature",
    "check_curvature",
    "curvature_bytes",
    "estimate_curvature",
    "load_curvature",
]

CURVATURE_CLASSES: dict[str, type[Curvature]] = {
    "exact": ExactCurvature,
    "kfac": KfacCurvature,
    "diagonal": DiagonalCurvature,
}
MAX_BYTES = 2 << 30
"""Default limit on the size of a curvature in bytes."""


def estimate_curvature(
    kind: str,
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    outputs: Tensor | None = None,
    vectors: str = "signs",
    generator: torch.Generator | None = None,
    max_bytes: int | None = MAX_BYTES,
) -> Curvature:
    """Estimates the curvature at a model's current weights, a sum over samples; the model is not modified.

    Args:
        kind: "exact", "kfac" (see `nbt.transfer.curvature.kfac` for its convention) or "diagonal".
        model: A model in evaluation mode, from samples to logits, (n, C). The curvature covers the parameters that
            require gradients. A batch takes about twice the memory of a training step.
        batches: Samples, (n, ...), or tuples of samples and further arguments of the model.
        outputs: Mask of the outputs in the loss, bool (C,); None for all.
        vectors: "unit" (one backward pass per output: the exact sum over outputs), "signs" (one pass, equal in
            expectation) or "fisher" (one pass, with labels drawn from the softmax). The kind "exact" uses no random
            vectors: it treats "signs" as "unit", and computes the expected Fisher matrix.
        generator: Random generator of signs and labels; PyTorch's global one when None.
        max_bytes: Maximum size of the curvature in bytes; None for no limit.

    Raises:
        UsageError: The curvature exceeds the limit, a module is in training mode, no parameter requires gradients, or
            there is no batch.
    """
    check_curvature(kind, model, max_bytes)
    output_vectors = OutputVectors(vectors, outputs, generator)
    passes = run_forward_passes(model, batches)
    if kind == "kfac":
        return estimate_kfac(passes, output_vectors)
    return _estimate_exact(passes, output_vectors) if kind == "exact" else _estimate_diagonal(passes, output_vectors)


def curvature_bytes(kind: str, model: nn.Module) -> int:
    """Returns the size of a curvature in bytes, computed from the shapes of the trainable parameters.

    For K-FAC it is an upper bound if the parameters of a layer are used without calling the layer (as in attention over
    windows), because only their diagonal is then kept; otherwise it is exact.

    Raises:
        UsageError: The kind is unknown, or no parameter requires gradients.
    """
    if kind not in CURVATURE_CLASSES:
        raise UsageError(f"curvature {kind!r} is unknown; {nearest(kind, CURVATURE_CLASSES)}")
    parameters = trainable_parameters(model)
    element_size = next(iter(parameters.values())).element_size()
    sizes = {name: parameter.numel() for name, parameter in parameters.items()}
    if kind == "exact":
        return element_size * sum(sizes.values()) ** 2
    if kind == "diagonal":
        return element_size * sum(sizes.values())
    total = 0
    for layer in find_layers(model):
        total += kfac_numel(layer)
        for name in layer.names:
            del sizes[name]
    return element_size * (total + sum(sizes.values()))


def check_curvature(kind: str, model: nn.Module, max_bytes: int | None = MAX_BYTES, *, count: int = 1) -> int:
    """Returns the size of `count` curvatures in bytes.

    Raises:
        UsageError: The size exceeds `max_bytes`; the message names the kinds that fit.
    """
    required = count * curvature_bytes(kind, model)
    if max_bytes is not None and required > max_bytes:
        smaller = {other: count * curvature_bytes(other, model) for other in CURVATURE_CLASSES if other != kind}
        fitting = [f"{other} ({_format_bytes(size)})" for other, size in smaller.items() if size <= max_bytes]
        remedy = f"use {' or '.join(fitting)}" if fitting else "freeze more of the model"
        factor = f"{count} times " if count > 1 else ""
        n_parameters = sum(p.numel() for p in trainable_parameters(model).values())
        raise UsageError(
            f"curvature {kind}: {factor}{n_parameters:,} trained parameters need {_format_bytes(required)}, more than "
            f"the bound of {_format_bytes(max_bytes)}; {remedy}, or raise the bound"
        )
    return required


def load_curvature(state: Mapping[str, Any]) -> Curvature:
    """Returns the curvature stored in a `state_dict` of any kind."""
    return CURVATURE_CLASSES[state["kind"]].from_state_dict(state)


def _format_bytes(n: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            break
        n /= 1024  # type: ignore[assignment]
    return f"{n:,.0f} {unit}" if n >= 100 or unit == "bytes" else f"{n:,.1f} {unit}"


@torch.no_grad()
def _estimate_exact(batches: Iterable[ForwardPass], output_vectors: OutputVectors) -> ExactCurvature:
    matrix: Tensor | None = None
    samples = 0
    for batch in batches:
        parameters = trainable_parameters(batch.model)
        samples += len(batch)
        vectors = output_vectors.exact_vectors(batch.logits)
        for vector, gradients in zip(vectors, batch.backward(vectors), strict=True):
            for start, stop in batch.chunks(sum(parameter.numel() for parameter in parameters.values())):
                per_sample = batch.rest_per_sample(vector, start, stop) if batch.rest else {}
                for layer in batch.by_layer:
                    per_sample |= batch.per_sample(layer, gradients, start, stop)
                rows = torch.cat([per_sample[name].flatten(1) for name in parameters], dim=1)
                if matrix is None:
                    matrix = rows.new_zeros(rows.shape[1], rows.shape[1])
                matrix.addmm_(rows.mT, rows)
    assert matrix is not None
    return ExactCurvature({name: parameter.shape for name, parameter in parameters.items()}, matrix, samples)


@torch.no_grad()
def _estimate_diagonal(batches: Iterable[ForwardPass], output_vectors: OutputVectors) -> DiagonalCurvature:
    total: dict[str, Tensor] = {}
    samples = 0
    for batch in batches:
        samples += len(batch)
        for name, parameter in trainable_parameters(batch.model).items():
            total.setdefault(name, torch.zeros_like(parameter))
        vectors = output_vectors.sample_vectors(batch.logits)
        for vector, gradients in zip(vectors, batch.backward(vectors), strict=True):
            for layer in batch.by_layer:
                _add_squares(total, batch, layer, gradients)
            if batch.rest:
                add_rest_squares(total, batch, vector)
    return DiagonalCurvature(total, samples)


def _add_squares(
    total: dict[str, Tensor], batch: ForwardPass, layer: GradientLayer, gradients: Sequence[Tensor | None]
) -> None:
    """Adds a layer's squared gradients, summed over samples."""
    calls = batch.by_layer[layer]
    if isinstance(layer, LinearLayer) and len(calls) == 1 and (inputs := batch.calls[calls[0]].inputs).ndim == 2:
        gradient = gradients[calls[0]]
        if gradient is not None and len(gradient) == len(batch):
            # (g a')^2 = g^2 (a^2)': per-sample gradients need not be computed.
            squares = gradient.square()
            if layer.weight:
                total[layer.weight] += squares.mT @ inputs.square()
            if layer.bias:
                total[layer.bias] += squares.sum(dim=0)
            return
    for start, stop in batch.chunks(layer.numel):
        for name, values in batch.per_sample(layer, gradients, start, stop).items():
            total[name] += values.square().sum(dim=0)
