"""Incremental ridge regression: a linear classifier that is computed from sums, so that past features are not stored.

With an intercept that is not penalised, W = (S + ridge I)^-1 (F'Y - n m t'), S = F'F - n m m', where m and t are the
means of features and targets. These values follow from n, F'F, F'Y and the column sums. Adding tasks one after another,
in any order, therefore equals one regression on all tasks.
"""

from __future__ import annotations

from typing import Any

import torch

from nbt.fit.ridge import STRENGTHS


class IncrementalRidge:
    """Ridge regression from float64 sums over features and targets.

    Args:
        dim: Number of features D.
        n_outputs: Number of targets C.
        device: Device of the sums.
    """

    def __init__(self, dim: int, n_outputs: int, *, device: torch.device | str = "cpu") -> None:
        # A last column of ones holds the number of images and the column sums.
        self._gram = torch.zeros(dim + 1, dim + 1, dtype=torch.float64, device=device)
        self._cross = torch.zeros(dim + 1, n_outputs, dtype=torch.float64, device=device)

    @property
    def n(self) -> int:
        """The number of images added so far."""
        return int(self._gram[-1, -1])

    def add(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        """Adds features, (n, D), with their targets, (n, C)."""
        rows = torch.cat([features.to(self._gram), torch.ones(len(features), 1).to(self._gram)], dim=1)
        self._gram += rows.T @ rows
        self._cross += rows.T @ targets.to(self._cross)

    def solve(self, share: float, *, intercept: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the weights, (C, D), and the biases, (C,), in float64.

        Args:
            share: Ridge strength as a share of the total scatter of the (centred) features, above 0.
            intercept: Whether to fit an intercept; without it, features are not centred and biases are 0.
        """
        scatter, cross = self._gram[:-1, :-1], self._cross[:-1]
        count = self._gram[-1, -1].clamp_min(1.0)
        mean, target = self._gram[-1, :-1] / count, self._cross[-1] / count
        if intercept:
            scatter = scatter - count * torch.outer(mean, mean)
            cross = cross - count * torch.outer(mean, target)
        total = scatter.diagonal().sum()
        if not intercept:
            mean, target = torch.zeros_like(mean), torch.zeros_like(target)
        # Rounding errors can give constant features a small scatter; such features allow no regression.
        if float(total) <= float(count) * torch.finfo(torch.float64).eps * float(self._gram.diagonal()[:-1].sum()):
            return torch.zeros_like(cross).T, target
        penalty = share * total * torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
        weight = torch.cholesky_solve(cross, torch.linalg.cholesky(scatter + penalty))
        return weight.T.contiguous(), target - mean @ weight

    def choose_strength(self, features: torch.Tensor, targets: torch.Tensor, *, intercept: bool = True) -> float:
        """Returns the share of `nbt.fit.ridge.STRENGTHS` with the smallest squared error on validation images.

        Args:
            features: Features of images that were not added, (n, D), n >= 1.
            targets: Targets, (n, C).
            intercept: As in `solve`.
        """
        inputs, truth = features.to(self._gram), targets.to(self._cross)

        def error(share: float) -> float:
            weight, bias = self.solve(share, intercept=intercept)
            return float((inputs @ weight.T + bias - truth).square().mean())

        return min(STRENGTHS, key=error)

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums as tensors."""
        return {"gram": self._gram, "cross": self._cross}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the sums from the result of `state_dict`."""
        self._gram.copy_(state["gram"])
        self._cross.copy_(state["cross"])
