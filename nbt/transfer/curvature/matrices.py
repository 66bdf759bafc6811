"""The interface of curvatures, and the two kinds that merge exactly: the full matrix and its diagonal.

A curvature is H = sum over samples of J'M J with J the Jacobian of the outputs with respect to the parameters: M = I
(Gauss-Newton matrix of 1/2 the squared error) or M = diag(p) - p p' (Fisher matrix of cross-entropy). It is a *sum*, so
that the curvatures of tasks add up, weighted by their numbers of images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor


class Curvature(ABC):
    """A positive semi-definite matrix over named parameters.

    Attributes:
        kind: "exact", "kfac" or "diagonal".
        additive: Whether `plus` is exact.
        samples: Number of samples in the sum.
    """

    kind: str
    additive: bool = True
    samples: int

    @property
    @abstractmethod
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of every parameter by name."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""

    @abstractmethod
    def multiply(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns H v, differentiable with respect to v.

        Args:
            vector: v by parameter name, in the parameters' shapes.

        Raises:
            ValueError: Names or shapes differ from those of the curvature.
        """

    @abstractmethod
    def plus(self, other: Curvature) -> Self:
        """Returns the merged curvature of both sets of samples.

        Raises:
            ValueError: The other curvature differs in kind or parameters.
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Returns the curvature with its tensors on a device."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the curvature as plain values, for `torch.save` and loading with `weights_only=True`.

        Plain values are tensors, numbers, strings, lists and dictionaries.
        """

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """Returns the curvature stored in a `state_dict`."""

    def check_vector(self, vector: Mapping[str, Tensor]) -> None:
        """Raises ValueError if names or shapes of a vector differ from those of the curvature."""
        shapes = self.shapes
        if different := sorted(shapes.keys() ^ vector.keys()):
            raise ValueError(f"curvature and vector are of different parameters: {', '.join(different[:3])}")
        for name, shape in shapes.items():
            if vector[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(vector[name].shape)}, its curvature {tuple(shape)}")

    def check_other(self, other: Curvature) -> None:
        """Raises ValueError if another curvature differs in kind or parameters."""
        if type(other) is not type(self):
            raise ValueError(f"a curvature of kind {self.kind} cannot be merged with one of kind {other.kind}")
        if other.shapes != self.shapes:
            raise ValueError("curvatures of different parameters cannot be merged")


class ExactCurvature(Curvature):
    """The full matrix, (P, P), for small models and tests.

    Args:
        shapes: Shapes of the parameters by name, in the order of the rows.
        matrix: (P, P), symmetric.
        samples: Number of samples in the sum.
    """

    kind = "exact"

    def __init__(self, shapes: Mapping[str, torch.Size], matrix: Tensor, samples: int) -> None:
        self._shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        self.matrix = matrix
        self.samples = samples

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of every parameter by name."""
        return self._shapes

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        return self.matrix.nbytes

    def multiply(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns H v; see `Curvature`."""
        self.check_vector(vector)
        product = self.matrix @ torch.cat([vector[name].reshape(-1) for name in self._shapes])
        parts = product.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def plus(self, other: Curvature) -> ExactCurvature:
        """Returns the exact sum; see `Curvature`."""
        self.check_other(other)
        assert isinstance(other, ExactCurvature)
        return ExactCurvature(self._shapes, self.matrix + other.matrix, self.samples + other.samples)

    def to(self, device: torch.device | str) -> ExactCurvature:
        """Returns the curvature with its tensors on a device."""
        return ExactCurvature(self._shapes, self.matrix.to(device), self.samples)

    def state_dict(self) -> dict[str, Any]:
        """Returns the curvature as plain values."""
        shapes = {name: list(shape) for name, shape in self._shapes.items()}
        return {"kind": self.kind, "samples": self.samples, "shapes": shapes, "matrix": self.matrix}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ExactCurvature:
        """Returns the curvature stored in a `state_dict`."""
        shapes = {name: torch.Size(shape) for name, shape in state["shapes"].items()}
        return cls(shapes, state["matrix"], state["samples"])


class DiagonalCurvature(Curvature):
    """The diagonal, as in EWC (Kirkpatrick et al. 2017, arXiv 1612.00796).

    Args:
        diagonal: Diagonal elements by parameter name, in the parameters' shapes, >= 0.
        samples: Number of samples in the sum.
    """

    kind = "diagonal"

    def __init__(self, diagonal: Mapping[str, Tensor], samples: int) -> None:
        self.diagonal = dict(diagonal)
        self.samples = samples

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of every parameter by name."""
        return {name: values.shape for name, values in self.diagonal.items()}

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        return sum(values.nbytes for values in self.diagonal.values())

    def multiply(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns H v; see `Curvature`."""
        self.check_vector(vector)
        if not self.diagonal:
            return {}
        products = torch._foreach_mul(list(self.diagonal.values()), [vector[name] for name in self.diagonal])
        return dict(zip(self.diagonal, products, strict=True))

    def plus(self, other: Curvature) -> DiagonalCurvature:
        """Returns the exact sum; see `Curvature`."""
        self.check_other(other)
        assert isinstance(other, DiagonalCurvature)
        total = {name: values + other.diagonal[name] for name, values in self.diagonal.items()}
        return DiagonalCurvature(total, self.samples + other.samples)

    def to(self, device: torch.device | str) -> DiagonalCurvature:
        """Returns the curvature with its tensors on a device."""
        return DiagonalCurvature({name: values.to(device) for name, values in self.diagonal.items()}, self.samples)

    def state_dict(self) -> dict[str, Any]:
        """Returns the curvature as plain values."""
        return {"kind": self.kind, "samples": self.samples, "diagonal": dict(self.diagonal)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> DiagonalCurvature:
        """Returns the curvature stored in a `state_dict`."""
        return cls(state["diagonal"], state["samples"])
