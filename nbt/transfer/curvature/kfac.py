"""K-FAC: the curvature layer by layer, each block a Kronecker product of two small matrices.

Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015, arXiv
1503.05671; for convolutions KFC, Grosse and Martens 2016, arXiv 1602.01407, called "expand" for general weight sharing
by Eschenhagen et al. 2023, arXiv 2311.00636.

**Convention.** There are N samples with T positions each; a is the layer's input at one position, with a last
coordinate 1 if there is a bias, and g the gradient of an output vector with respect to the layer's output there:
```
A = 1/(N T) sum_n sum_t a a'        G = 1/N sum_n sum_t sum_v g g'        block: v'H v = N tr(G dW A dW')
```
with v the output vectors (all unit vectors, or one vector of random signs, whose square is the same in expectation).
This assumes that a and g are independent and positions uncorrelated. It is exact for one sample with one position, and
for a layer on vectors whose g does not depend on a, such as the head: its g is the output vector itself, so G is the
identity on the outputs of the loss (set exactly, not sampled), and *every* row, including those of unseen classes, has
the curvature N A. For the Fisher matrix the head's G is the mean of diag(p) - p p'.

The groups of a convolution have separate factors; the curvature between groups is neglected. Scale and shift of a
normalisation have their full (2C, 2C) block, exact for the output vectors used. All other parameters (class tokens,
attention's joint projections, layer scales, weights shared by several modules) have their diagonal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nbt.transfer.curvature.layer_calls import ForwardPass
from nbt.transfer.curvature.layer_gradients import GradientLayer, KroneckerLayer, NormLayer
from nbt.transfer.curvature.matrices import Curvature, DiagonalCurvature, ExactCurvature
from nbt.transfer.curvature.output_vectors import OutputVectors

# Number of per-sample gradients of a normalisation per matrix product.
_NORM_ROWS_PER_PRODUCT = 512


@dataclass(frozen=True, eq=False)
class KroneckerFactors:
    """The two Kronecker factors of one layer.

    Attributes:
        shapes: Shapes of the layer's trainable parameters by name: of the weight, the bias, or both in this order.
        inputs: A, (groups, I, I).
        outputs: G, (groups, O, O).
    """

    shapes: dict[str, torch.Size]
    inputs: Tensor
    outputs: Tensor

    def multiply(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns G V A by parameter, where V is the weight with the bias as its last column."""
        groups, rows = self.outputs.shape[:2]
        columns = [vector[name].reshape(groups, rows, -1) for name in self.shapes]
        product = self.outputs @ (columns[0] if len(columns) == 1 else torch.cat(columns, dim=2)) @ self.inputs
        parts = product.split([part.shape[2] for part in columns], dim=2)
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


class KfacCurvature(Curvature):
    """A block-diagonal curvature; see the module docstring for the convention.

    Args:
        layers: Kronecker factors of linear layers and convolutions.
        norms: Full blocks of the scale and shift of normalisations.
        rest: Diagonal of all other parameters.
        samples: Number of samples N.
    """

    kind = "kfac"
    additive = False

    def __init__(
        self, layers: Sequence[KroneckerFactors], norms: Sequence[ExactCurvature], rest: DiagonalCurvature, samples: int
    ) -> None:
        self.layers = list(layers)
        self.norms = list(norms)
        self.rest = rest
        self.samples = samples

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of every parameter by name."""
        parts: list[KroneckerFactors | Curvature] = [*self.layers, *self.norms, self.rest]
        return {name: shape for part in parts for name, shape in part.shapes.items()}

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        factors = sum(block.inputs.nbytes + block.outputs.nbytes for block in self.layers)
        return factors + sum(block.nbytes for block in self.norms) + self.rest.nbytes

    def multiply(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns H v, which is N G V A for a layer; see `Curvature`."""
        self.check_vector(vector)
        products: dict[str, Tensor] = {}
        for block in self.layers:
            products |= block.multiply(vector)
        if products:
            products = dict(
                zip(products, torch._foreach_mul(list(products.values()), float(self.samples)), strict=True)
            )
        for part in (*self.norms, self.rest):
            products |= part.multiply({name: vector[name] for name in part.shapes})
        return products

    def plus(self, other: Curvature) -> KfacCurvature:
        """Merges two curvatures with N = N1 + N2 and averages the factors by samples, which is *biased*.

        A mean of products differs from the product of means: with shares s = N1 / N and 1 - s, a layer's N A x G
        differs from N1 A1 x G1 + N2 A2 x G2 by `-N s (1 - s) (A1 - A2) x (G1 - G2)`. The difference vanishes where the
        tasks have the same A or the same G (as in the head), and has either sign elsewhere. Normalisations and the
        diagonal rest are added exactly. To avoid the bias keep the curvatures of the tasks separate, which takes more
        memory and time.

        Raises:
            ValueError: The other curvature differs in kind, parameters or blocks.
        """
        self.check_other(other)
        assert isinstance(other, KfacCurvature)
        if self.rest.shapes != other.rest.shapes or len(self.layers) != len(other.layers):
            raise ValueError("curvatures with different blocks cannot be merged")
        total = self.samples + other.samples
        share = other.samples / total if total else 0.0
        layers = [
            replace(
                ours,
                inputs=torch.lerp(ours.inputs, theirs.inputs, share),
                outputs=torch.lerp(ours.outputs, theirs.outputs, share),
            )
            for ours, theirs in zip(self.layers, other.layers, strict=True)
        ]
        norms = [ours.plus(theirs) for ours, theirs in zip(self.norms, other.norms, strict=True)]
        return KfacCurvature(layers, norms, self.rest.plus(other.rest), total)

    def to(self, device: torch.device | str) -> KfacCurvature:
        """Returns the curvature with its tensors on a device."""
        layers = [
            replace(block, inputs=block.inputs.to(device), outputs=block.outputs.to(device)) for block in self.layers
        ]
        return KfacCurvature(layers, [norm.to(device) for norm in self.norms], self.rest.to(device), self.samples)

    def state_dict(self) -> dict[str, Any]:
        """Returns the curvature as plain values."""
        layers = [
            {
                "shapes": {name: list(shape) for name, shape in block.shapes.items()},
                "inputs": block.inputs,
                "outputs": block.outputs,
            }
            for block in self.layers
        ]
        norms = [norm.state_dict() for norm in self.norms]
        rest = self.rest.state_dict()
        return {"kind": self.kind, "samples": self.samples, "layers": layers, "norms": norms, "rest": rest}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> KfacCurvature:
        """Returns the curvature stored in a `state_dict`."""
        layers = [
            KroneckerFactors(
                {name: torch.Size(shape) for name, shape in block["shapes"].items()},
                block["inputs"],
                block["outputs"],
            )
            for block in state["layers"]
        ]
        norms = [ExactCurvature.from_state_dict(norm) for norm in state["norms"]]
        return cls(layers, norms, DiagonalCurvature.from_state_dict(state["rest"]), state["samples"])


class _KfacAccumulator:
    """Running sums over batches."""

    def __init__(self) -> None:
        self.inputs: dict[KroneckerLayer, Tensor] = {}
        self.terms: dict[KroneckerLayer, int] = defaultdict(int)
        self.outputs: dict[KroneckerLayer, Tensor] = {}
        self.norms: dict[GradientLayer, Tensor] = {}
        self.rows: dict[GradientLayer, list[Tensor]] = defaultdict(list)
        self.rest: dict[str, Tensor] = {}
        self.samples = 0

    def add_inputs(self, batch: ForwardPass) -> None:
        """Adds a a' of every call."""
        self.samples += len(batch)
        for call in batch.calls:
            layer = call.layer
            if isinstance(layer, KroneckerLayer):
                groups, rows, columns = layer.shape
                if layer not in self.inputs:
                    self.inputs[layer] = call.inputs.new_zeros(groups, columns, columns)
                    self.outputs[layer] = call.inputs.new_zeros(groups, rows, rows)
                self.terms[layer] += layer.add_input_gram(self.inputs[layer], call.inputs)

    def add_outputs(
        self, batch: ForwardPass, gradients: Sequence[Tensor | None], exact_layers: set[GradientLayer]
    ) -> None:
        """Adds g g' of every call of a layer that is not in `exact_layers`, whose factor is set without sampling."""
        for call, gradient in zip(batch.calls, gradients, strict=True):
            if isinstance(call.layer, KroneckerLayer) and call.layer not in exact_layers and gradient is not None:
                call.layer.add_gradient_gram(self.outputs[call.layer], gradient)

    def add_norms(self, batch: ForwardPass, gradients: Sequence[Tensor | None]) -> None:
        """Adds d d', where d are the samples' gradients of scale and shift."""
        for layer in batch.by_layer:
            if isinstance(layer, NormLayer):
                self.rows[layer].append(
                    torch.cat(list(batch.per_sample(layer, gradients, 0, len(batch)).values()), dim=1)
                )
                if sum(map(len, self.rows[layer])) >= _NORM_ROWS_PER_PRODUCT:
                    self._multiply_rows(layer)

    def _multiply_rows(self, layer: GradientLayer) -> None:
        """Adds the products of the collected gradients in one matrix product, because the block may be large."""
        rows = torch.cat(self.rows.pop(layer))
        if layer not in self.norms:
            self.norms[layer] = rows.new_zeros(layer.numel, layer.numel)
        self.norms[layer].addmm_(rows.mT, rows)

    def curvature(self) -> KfacCurvature:
        """Returns the curvature of all added batches."""
        for layer in list(self.rows):
            self._multiply_rows(layer)
        layers = [
            KroneckerFactors(
                {name: parameter.shape for name, parameter in layer.parameters.items()},
                self.inputs[layer] / self.terms[layer],
                self.outputs[layer] / self.samples,
            )
            for layer in self.inputs
        ]
        norms = [
            ExactCurvature({name: parameter.shape for name, parameter in layer.parameters.items()}, total, self.samples)
            for layer, total in self.norms.items()
        ]
        return KfacCurvature(layers, norms, DiagonalCurvature(self.rest, self.samples), self.samples)


@torch.no_grad()
def estimate_kfac(batches: Iterable[ForwardPass], vectors: OutputVectors) -> KfacCurvature:
    """Estimates the K-FAC curvature: one forward pass per batch and one backward pass per output vector."""
    sums = _KfacAccumulator()
    for batch in batches:
        sums.add_inputs(batch)
        exact_layers: set[GradientLayer] = set()
        for layer, calls in batch.by_layer.items():
            if isinstance(layer, KroneckerLayer) and len(calls) == 1 and batch.is_output(batch.calls[calls[0]]):
                exact_layers.add(layer)
                sums.outputs[layer] += vectors.second_moment(batch.logits)
        output_vectors = vectors.sample_vectors(batch.logits)
        for vector, gradients in zip(output_vectors, batch.backward(output_vectors), strict=True):
            sums.add_outputs(batch, gradients, exact_layers)
            sums.add_norms(batch, gradients)
            if batch.rest:
                add_rest_squares(sums.rest, batch, vector)
    return sums.curvature()


def add_rest_squares(total: dict[str, Tensor], batch: ForwardPass, vector: Tensor) -> None:
    """Adds the squared gradients of the parameters that belong to no layer, summed over samples, by name."""
    numel = sum(batch.model.get_parameter(name).numel() for name in batch.rest)
    for start, stop in batch.chunks(numel):
        for name, values in batch.rest_per_sample(vector, start, stop).items():
            _accumulate(total, name, values.square().sum(dim=0))


def kfac_numel(layer: GradientLayer) -> int:
    """Returns the number of elements of a layer's block."""
    if isinstance(layer, KroneckerLayer):
        groups, outputs, inputs = layer.shape
        return groups * (outputs**2 + inputs**2)
    return layer.numel**2


def _accumulate(total: dict[Any, Tensor], key: Any, value: Tensor) -> None:
    """Adds a value to a running sum in place; the first value initialises the sum."""
    if key in total:
        total[key] += value
    else:
        total[key] = value
