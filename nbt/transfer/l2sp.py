"""L2-SP: weight decay towards the pretrained weights, mixed with weight decay towards zero.

`penalty = alpha/2 * sum ||w - w0||^2 + beta/2 * sum ||w||^2`, with separate strengths for each parameter group.
Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional networks", ICML 2018,
arXiv 1802.01483; as a continuous mix: arXiv 2107.08585.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from nbt.transfer.layer_lr import ParameterGroup


class L2SP:
    """The L2-SP penalty of one trial, as a loss term and as the fused in-place updates that training uses.

    Anchors, the pretrained values, are looked up by the identity of the parameter and not by its name, so that a
    re-initialised layer is never anchored by mistake. Set the weight decay of the optimiser to 0, because this class
    performs all weight decay.

    Args:
        groups: Parameters with their strengths `alpha` (towards the anchor) and `beta` (towards zero).
        anchors: Pretrained value of every parameter of a group whose `alpha` is above 0.

    Raises:
        ValueError: A parameter with `alpha` above 0 has no anchor, or one of another shape.
    """

    def __init__(self, groups: Sequence[ParameterGroup], anchors: Mapping[nn.Parameter, torch.Tensor]) -> None:
        self.groups = [group for group in groups if group.alpha or group.beta]
        self.anchors = [self._group_anchors(group, anchors) for group in self.groups]

    @staticmethod
    def _group_anchors(group: ParameterGroup, anchors: Mapping[nn.Parameter, torch.Tensor]) -> list[torch.Tensor]:
        if not group.alpha:
            return []
        group_anchors = []
        for parameter in group.parameters:
            anchor = anchors.get(parameter)
            if anchor is None or anchor.shape != parameter.shape:
                problem = "no anchor" if anchor is None else f"an anchor of shape {tuple(anchor.shape)}"
                raise ValueError(f"a parameter of shape {tuple(parameter.shape)} with alpha > 0 has {problem}")
            group_anchors.append(anchor)
        return group_anchors

    def penalty(self) -> torch.Tensor:
        """Returns the penalty as a differentiable scalar, for checks and other optimisers; slow."""
        total = torch.zeros(())
        for group, anchors in zip(self.groups, self.anchors, strict=True):
            for index, parameter in enumerate(group.parameters):
                total = total.to(parameter.device) + group.beta / 2 * parameter.square().sum()
                if anchors:
                    total = total + group.alpha / 2 * (parameter - anchors[index]).square().sum()
        return total

    @torch.no_grad()
    def add_to_gradients(self) -> None:
        """Adds the penalty's gradient, `(alpha + beta) w - alpha w0`, to `.grad` in place, for SGD."""
        for group, trained, anchors in self._parameters(lambda parameter: parameter.grad is not None):
            gradients: list[torch.Tensor] = [parameter.grad for parameter in trained]  # type: ignore[misc]
            torch._foreach_add_(gradients, [p.detach() for p in trained], alpha=group.alpha + group.beta)
            if anchors:
                torch._foreach_add_(gradients, anchors, alpha=-group.alpha)

    @torch.no_grad()
    def decay(self, factor: float) -> None:
        """Adds `-lr * ((alpha + beta) w - alpha w0)` to the weights in place: the decoupled form, for AdamW.

        Parameters that do not require gradients, such as those of a stalled backbone, do not change.

        Args:
            factor: Current learning rate as a share of each group's peak rate.
        """
        for group, trained, anchors in self._parameters(lambda parameter: parameter.requires_grad):
            rate = group.lr * factor
            weights = [parameter.detach() for parameter in trained]
            torch._foreach_mul_(weights, 1.0 - rate * (group.alpha + group.beta))
            if anchors:
                torch._foreach_add_(weights, anchors, alpha=rate * group.alpha)

    def _parameters(
        self, chosen: Callable[[nn.Parameter], bool]
    ) -> Iterator[tuple[ParameterGroup, list[nn.Parameter], list[torch.Tensor]]]:
        """Yields each group with its chosen parameters and their anchors, if the group has any."""
        for group, anchors in zip(self.groups, self.anchors, strict=True):
            indices = [index for index, parameter in enumerate(group.parameters) if chosen(parameter)]
            if indices:
                parameters = [group.parameters[index] for index in indices]
                yield group, parameters, [anchors[index] for index in indices] if anchors else []
