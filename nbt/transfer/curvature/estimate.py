"""The curvature of a loss around a model's weights, from forward and backward passes: exact, K-FAC or diagonal.

H is the sum over samples of J'J, the Hessian of 1/2 sum ||f - target||^2 of a model that is linear in its parameters
(and the Gauss-Newton matrix of any other); it needs no labels. With the Fisher it is that of cross-entropy. As the
penalty that stands for data that are gone it makes continual training of a linearised model equal to joint training,
if it is exact: see `nbt.transfer.quadratic_penalty`.
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
    """Returns the curvature at a model's present weights, a sum over samples; the model is as before.

    Args:
        kind: "exact", "kfac" (see `nbt.transfer.curvature.kfac` for its convention) or "diagonal".
        model: In evaluation mode, from samples to logits, (n, C). Parameters that require a gradient take part. Memory
            of a batch is about twice that of training on it.
        batches: Samples, (n, ...), or tuples of samples and further arguments of the model.
        outputs: Those in the loss, bool (C,); None for all.
        vectors: "unit" (one backward pass for every output: the exact sum over outputs), "signs" (one pass, the same
            in expectation) or "fisher" (one pass, with labels drawn from the softmax). Of kind "exact" there is no
            chance: it takes "signs" as "unit", and the expected Fisher.
        generator: Of the signs and labels; torch's own when None.
        max_bytes: The most that the curvature may take; None for no bound.

    Raises:
        UsageError: It would not fit, something is in training mode, nothing trains, or there is no batch.
    """
    check_curvature(kind, model, max_bytes)
    vectors_of_outputs = OutputVectors(vectors, outputs, generator)
    stream = run_forward_passes(model, batches)
    if kind == "kfac":
        return estimate_kfac(stream, vectors_of_outputs)
    return (
        _estimate_exact(stream, vectors_of_outputs)
        if kind == "exact"
        else _estimate_diagonal(stream, vectors_of_outputs)
    )


def curvature_bytes(kind: str, model: nn.Module) -> int:
    """Returns how many bytes a curvature will take, from the shapes of the model's trainable parameters alone.

    For K-FAC it is an upper bound where a layer turns out to be used in another way than by being called (attention
    over windows, for one), for then it has its diagonal only; else it is exact.

    Raises:
        UsageError: The kind is unknown, or nothing trains.
    """
    if kind not in CURVATURE_CLASSES:
        raise UsageError(f"curvature {kind!r} is unknown; {nearest(kind, CURVATURE_CLASSES)}")
    parameters = trainable_parameters(model)
    element = next(iter(parameters.values())).element_size()
    sizes = {name: parameter.numel() for name, parameter in parameters.items()}
    if kind == "exact":
        return element * sum(sizes.values()) ** 2
    if kind == "diagonal":
        return element * sum(sizes.values())
    total = 0
    for layer in find_layers(model):
        total += kfac_numel(layer)
        for name in layer.names:
            del sizes[name]
    return element * (total + sum(sizes.values()))


def check_curvature(kind: str, model: nn.Module, max_bytes: int | None = MAX_BYTES, *, count: int = 1) -> int:
    """Returns how many bytes `count` curvatures take.

    Raises:
        UsageError: It is more than `max_bytes`: how much, and what would fit.
    """
    need = count * curvature_bytes(kind, model)
    if max_bytes is not None and need > max_bytes:
        smaller = {other: count * curvature_bytes(other, model) for other in CURVATURE_CLASSES if other != kind}
        fitting = [f"{other} ({_format_bytes(size)})" for other, size in smaller.items() if size <= max_bytes]
        remedy = f"use {' or '.join(fitting)}" if fitting else "freeze more of the model"
        several = f"{count} times " if count > 1 else ""
        raise UsageError(
            f"curvature {kind}: {several}{sum(p.numel() for p in trainable_parameters(model).values()):,} trained parameters "
            f"need {_format_bytes(need)}, more than the bound of {_format_bytes(max_bytes)}; {remedy}, or raise the bound"
        )
    return need


def load_curvature(state: Mapping[str, Any]) -> Curvature:
    """Returns the curvature, of whatever kind, that a `state_dict` is of."""
    return CURVATURE_CLASSES[state["kind"]].from_state_dict(state)


def _format_bytes(n: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            break
        n /= 1024  # type: ignore[assignment]
    return f"{n:,.0f} {unit}" if n >= 100 or unit == "bytes" else f"{n:,.1f} {unit}"


@torch.no_grad()
def _estimate_exact(batches: Iterable[ForwardPass], vectors_of_outputs: OutputVectors) -> ExactCurvature:
    matrix: Tensor | None = None
    samples = 0
    for batch in batches:
        names = trainable_parameters(batch.model)
        samples += len(batch)
        drawn = vectors_of_outputs.every(batch.logits)
        for vector, gradients in zip(drawn, batch.backward(drawn), strict=True):
            for start, stop in batch.chunks(sum(parameter.numel() for parameter in names.values())):
                found = batch.rest_per_sample(vector, start, stop) if batch.rest else {}
                for layer in batch.by_layer:
                    found |= batch.per_sample(layer, gradients, start, stop)
                rows = torch.cat([found[name].flatten(1) for name in names], dim=1)
                if matrix is None:
                    matrix = rows.new_zeros(rows.shape[1], rows.shape[1])
                matrix.addmm_(rows.mT, rows)
    assert matrix is not None
    return ExactCurvature({name: parameter.shape for name, parameter in names.items()}, matrix, samples)


@torch.no_grad()
def _estimate_diagonal(batches: Iterable[ForwardPass], vectors_of_outputs: OutputVectors) -> DiagonalCurvature:
    total: dict[str, Tensor] = {}
    samples = 0
    for batch in batches:
        samples += len(batch)
        names = trainable_parameters(batch.model)
        for name, parameter in names.items():
            total.setdefault(name, torch.zeros_like(parameter))
        drawn = vectors_of_outputs.draw(batch.logits)
        for vector, gradients in zip(drawn, batch.backward(drawn), strict=True):
            for layer in batch.by_layer:
                _add_squares(total, batch, layer, gradients)
            if batch.rest:
                add_rest_squares(total, batch, vector)
    return DiagonalCurvature(total, samples)


def _add_squares(
    total: dict[str, Tensor], batch: ForwardPass, layer: GradientLayer, gradients: Sequence[Tensor | None]
) -> None:
    """Adds the sums over samples of a layer's squared gradients."""
    calls = batch.by_layer[layer]
    if isinstance(layer, LinearLayer) and len(calls) == 1 and (inputs := batch.calls[calls[0]].inputs).ndim == 2:
        gradient = gradients[calls[0]]
        if gradient is not None and len(gradient) == len(batch):
            # (g a')^2 = g^2 (a^2)': no gradient of any sample is ever made.
            squares = gradient.square()
            if layer.weight:
                total[layer.weight] += squares.mT @ inputs.square()
            if layer.bias:
                total[layer.bias] += squares.sum(dim=0)
            return
    for start, stop in batch.chunks(layer.numel):
        for name, values in batch.per_sample(layer, gradients, start, stop).items():
            total[name] += values.square().sum(dim=0)
