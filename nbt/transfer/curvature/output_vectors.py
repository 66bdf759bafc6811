"""Vectors at a model's outputs whose outer products sum, or average, to the curvature of the loss there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nbt.errors import UsageError

VECTORS = ("unit", "signs", "fisher")


@dataclass(frozen=True, eq=False)
class OutputVectors:
    """How vectors s with E[s s'] = M are had: M the identity on the outputs of the loss, or diag(p) - p p'.

    Attributes:
        kind: "unit" (every unit vector: exact), "signs" (one vector of random signs a sample) or "fisher" (one vector
            onehot(y) - p a sample, p the softmax over the outputs and y drawn from p).
        outputs: Those in the loss, bool (C,); None for all.
        generator: Of the signs and labels; torch's own when None.
    """

    kind: str
    outputs: Tensor | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.kind not in VECTORS:
            raise UsageError(f"output vectors {self.kind!r} are not one of {', '.join(VECTORS)}")
        if self.outputs is not None and (self.outputs.dtype != torch.bool or not self.outputs.any()):
            raise UsageError("outputs: expected a bool mask with at least one output in the loss")

    def draw(self, logits: Tensor) -> list[Tensor]:
        """Returns the vectors of a batch, each (n, C): C or fewer for "unit", else one."""
        if self.kind == "unit":
            return self.every(logits)
        place = "cpu" if self.generator is None else self.generator.device
        if self.kind == "signs":
            bits = torch.randint(2, logits.shape, generator=self.generator, device=place)
            return [(2 * bits - 1).to(logits) * self._mask(logits)]
        p = self._probabilities(logits)
        labels = torch.multinomial(p.to(place), 1, generator=self.generator).to(logits.device)
        return [torch.zeros_like(p).scatter_(1, labels, 1.0) - p]

    def every(self, logits: Tensor) -> list[Tensor]:
        """Returns vectors of a batch, each (n, C), whose outer products sum to M without chance.

        For the Fisher they are sqrt(p_c) (onehot(c) - p).
        """
        chosen = self._mask(logits).nonzero()[:, 0]
        units = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[chosen]
        if self.kind != "fisher":
            return [unit.expand_as(logits) for unit in units]
        p = self._probabilities(logits)
        return [p[:, c, None].sqrt() * (unit - p) for c, unit in zip(chosen.tolist(), units, strict=True)]

    def second_moment(self, logits: Tensor) -> Tensor:
        """Returns the sum of M over a batch, (C, C)."""
        if self.kind != "fisher":
            return torch.diag(self._mask(logits).to(logits) * len(logits))
        p = self._probabilities(logits)
        return torch.diag(p.sum(dim=0)) - p.mT @ p

    def _mask(self, logits: Tensor) -> Tensor:
        if self.outputs is None:
            return torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        if self.outputs.shape != logits.shape[1:]:
            raise UsageError(f"outputs: a mask of {len(self.outputs)} for a model of {logits.shape[1]} outputs")
        return self.outputs.to(logits.device)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.detach().masked_fill(~self._mask(logits), -torch.inf).softmax(dim=1)
