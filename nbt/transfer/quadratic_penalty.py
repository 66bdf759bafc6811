"""The quadratic penalty that represents earlier tasks whose data are no longer available.

`1/2 strength (v - c)' (sum_s H_s + damping I) (v - c) / n`, with c the parameters after the last task, H_s the
curvature of each earlier task (a sum over its samples), and n the number of images of the current task, whose loss is a
mean over them. For a model that is linear in its parameters, squared error and exact H_s, the minimum of loss plus
penalty is that of joint training on all tasks. With the diagonal of the Fisher matrix it is EWC (Kirkpatrick et al.
2017, arXiv 1612.00796).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nbt.errors import UsageError
from nbt.transfer.curvature.matrices import Curvature


class QuadraticPenalty:
    """The quadratic penalty on the parameters bound to it.

    For a model linearised at theta0, v may be theta or theta - theta0, with c to match, because only v - c matters.
    Curvatures whose merge is exact are merged on construction.

    Args:
        curvatures: H_s of the earlier tasks; empty for damping alone.
        centre: c by parameter name; copied.
        strength: Factor of the whole penalty, >= 0.
        damping: Constant added to the diagonal of the summed curvature, >= 0, in the same units: a precision times a
            number of images.
        scale: n, the divisor of the penalty, above 0.

    Raises:
        UsageError: Strength, damping or scale is out of range.
        ValueError: The curvatures have other parameters than the centre, or differ in their parameters.
    """

    def __init__(
        self,
        curvatures: Sequence[Curvature],
        centre: Mapping[str, Tensor],
        *,
        strength: float = 1.0,
        damping: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        if strength < 0 or damping < 0:
            raise UsageError(f"quadratic penalty: strength {strength} and damping {damping} must not be negative")
        if scale <= 0:
            raise UsageError(f"quadratic penalty: scale {scale} is not above 0")
        for curvature in curvatures:
            curvature.check_vector(centre)
        self.curvatures = _merge_additive(curvatures)
        self.centre = {name: values.detach().clone() for name, values in centre.items()}
        self.factor = strength / scale
        self.damping = damping
        self.parameters: dict[str, nn.Parameter] = {}

    def bind(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Sets the penalised parameters, and moves centre and curvatures to their device.

        Raises:
            ValueError: Names or shapes differ from those of the centre.
        """
        if different := sorted(parameters.keys() ^ self.centre.keys()):
            raise ValueError(f"the penalty's centre and the parameters differ in {', '.join(different[:3])}")
        for name, parameter in parameters.items():
            if parameter.shape != self.centre[name].shape:
                raise ValueError(
                    f"{name} has shape {tuple(parameter.shape)}, the penalty's centre {tuple(self.centre[name].shape)}"
                )
        self.parameters = dict(parameters)
        self.centre = {name: self.centre[name].to(parameter) for name, parameter in parameters.items()}
        if parameters:
            device = next(iter(parameters.values())).device
            self.curvatures = [curvature.to(device) for curvature in self.curvatures]

    def value(self) -> Tensor:
        """Returns the penalty, a scalar that is differentiable with respect to the bound parameters."""
        displacement = {name: parameter - self.centre[name] for name, parameter in self.parameters.items()}
        products = self._curvature_product(displacement)
        terms = [(displacement[name] * product).sum() for name, product in products.items()]
        return 0.5 * self.factor * torch.stack(terms).sum()

    @torch.no_grad()
    def add_to_gradients(self) -> None:
        """Adds the penalty's gradient to `.grad` of the bound parameters in place; a missing `.grad` counts as 0.

        Frozen parameters (`requires_grad` is false) get no gradient, so that an optimiser skips them; their
        displacement still contributes to the gradients of the others.
        """
        if not self.factor or not self.parameters:
            return
        names = list(self.parameters)
        displacement = torch._foreach_sub(
            [parameter.detach() for parameter in self.parameters.values()], [self.centre[name] for name in names]
        )
        products = self._curvature_product(dict(zip(names, displacement, strict=True)))
        trained = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        for parameter in trained.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients: list[Tensor] = [p.grad for p in trained.values()]  # type: ignore[misc]
        if gradients:
            torch._foreach_add_(gradients, [products[name] for name in trained], alpha=self.factor)

    def _curvature_product(self, displacement: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns (sum_s H_s + damping I) (v - c)."""
        total = {name: self.damping * values for name, values in displacement.items()}
        for curvature in self.curvatures:
            product = curvature.multiply(displacement)
            sums = torch._foreach_add(list(total.values()), [product[name] for name in total])
            total = dict(zip(total, sums, strict=True))
        return total


def _merge_additive(curvatures: Sequence[Curvature]) -> list[Curvature]:
    """Merges the curvatures whose merge is exact, separately for each kind."""
    sums: dict[type[Curvature], Curvature] = {}
    separate = []
    for curvature in curvatures:
        if not curvature.additive:
            separate.append(curvature)
        elif type(curvature) in sums:
            sums[type(curvature)] = sums[type(curvature)].plus(curvature)
        else:
            sums[type(curvature)] = curvature
    return [*sums.values(), *separate]
