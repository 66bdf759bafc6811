"""Vectors at a model's outputs whose outer products sum, or average, to the curvature of the loss there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nbt.errors import UsageError

VECTORS = ("unit", "signs", "fisher")


@dataclass(frozen=True, eq=False)
class OutputVectors:
    """Generates vectors s with E[s s'] = M, with M the identity on the outputs of the loss, or diag(p) - p p'.

    Attributes:
        kind: "unit" (all unit vectors: exact), "signs" (one vector of random signs per sample) or "fisher" (one vector
            onehot(y) - p per sample, with p the softmax over the outputs and y drawn from p).
        outputs: Mask of the outputs in the loss, bool (C,); None for all.
        generator: Random generator of signs and labels; PyTorch's global one when None.
    """

    kind: str
    outputs: Tensor | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.kind not in VECTORS:
            raise UsageError(f"output vectors {self.kind!r} are not one of {', '.join(VECTORS)}")
        if self.outputs is not None and (self.outputs.dtype != torch.bool or not self.outputs.any()):
            raise UsageError("outputs: expected a bool mask with at least one output in the loss")

    def sample_vectors(self, logits: Tensor) -> list[Tensor]:
        """Returns the vectors of a batch, (n, C) each: up to C vectors for "unit", else one."""
        if self.kind == "unit":
            return self.exact_vectors(logits)
        device = "cpu" if self.generator is None else self.generator.device
        if self.kind == "signs":
            bits = torch.randint(2, logits.shape, generator=self.generator, device=device)
            return [(2 * bits - 1).to(logits) * self._mask(logits)]
        p = self._probabilities(logits)
        labels = torch.multinomial(p.to(device), 1, generator=self.generator).to(logits.device)
        return [torch.zeros_like(p).scatter_(1, labels, 1.0) - p]

    def exact_vectors(self, logits: Tensor) -> list[Tensor]:
        """Returns the vectors of a batch, (n, C) each, whose outer products sum to M exactly.

        For the Fisher matrix these are sqrt(p_c) (onehot(c) - p).
        """
        in_loss = self._mask(logits).nonzero()[:, 0]
        units = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[in_loss]
        if self.kind != "fisher":
            return [unit.expand_as(logits) for unit in units]
        p = self._probabilities(logits)
        return [p[:, c, None].sqrt() * (unit - p) for c, unit in zip(in_loss.tolist(), units, strict=True)]

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
