"""The quadratic penalty that stands for tasks whose data are gone.

`1/2 strength (v - c)' (sum_s H_s + damping I) (v - c) / n`, with c the parameters after the last task, H_s the
curvature of each task before (a sum over its samples), and n the number of images of the task that runs, whose loss is
a mean over them. For a model that is linear in its parameters, squared error and exact H_s, the minimum of loss and
penalty is that of joint training on all tasks. With the Fisher's diagonal it is EWC (Kirkpatrick et al. 2017,
arXiv 1612.00796).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nbt.errors import UsageError
from nbt.transfer.curvature.matrices import Curvature


class QuadraticPenalty:
    """The penalty on parameters that are bound to it.

    Of a model that is linearised at theta0 it may be given theta or theta - theta0 as v, with c to match: only v - c
    matters. Curvatures whose sum is exact are added up at once.

    Args:
        curvatures: H_s of the tasks before; none for damping alone.
        centre: c, by name; kept as copies.
        strength: Factor of the whole penalty, >= 0.
        damping: Added to every diagonal element of the sum, >= 0, in the same units: a precision times images.
        scale: n, what the penalty is divided by, above 0.

    Raises:
        UsageError: Strength, damping or scale is out of range.
        ValueError: Curvatures are of other parameters than the centre, or of different parameters.
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
        """Sets the parameters that are penalised, and brings centre and curvatures to their device.

        Raises:
            ValueError: They are not those of the centre by name or shape.
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
        for parameter in parameters.values():
            self.curvatures = [curvature.to(parameter.device) for curvature in self.curvatures]
            break

    def value(self) -> Tensor:
        """Returns the penalty, (), differentiable by the bound parameters."""
        displacement = {name: parameter - self.centre[name] for name, parameter in self.parameters.items()}
        parts = [(displacement[name] * pull).sum() for name, pull in self._curvature_product(displacement).items()]
        return 0.5 * self.factor * torch.stack(parts).sum()

    @torch.no_grad()
    def add_to_gradients(self) -> None:
        """Adds the penalty's gradient to `.grad` of the bound parameters in place; a missing `.grad` counts as 0.

        Parameters that stand still for now (`requires_grad` is false) get none, so that an optimiser skips them; where
        they are still pulls at the others.
        """
        if not self.factor or not self.parameters:
            return
        names = list(self.parameters)
        displacement = torch._foreach_sub(
            [p.detach() for p in self.parameters.values()], [self.centre[n] for n in names]
        )
        pull = self._curvature_product(dict(zip(names, displacement, strict=True)))
        moving = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        for parameter in moving.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients: list[Tensor] = [p.grad for p in moving.values()]  # type: ignore[misc]
        if gradients:
            torch._foreach_add_(gradients, [pull[name] for name in moving], alpha=self.factor)

    def _curvature_product(self, displacement: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns (sum_s H_s + damping I) (v - c)."""
        total = {name: self.damping * values for name, values in displacement.items()}
        for curvature in self.curvatures:
            product = curvature.multiply(displacement)
            added = torch._foreach_add(list(total.values()), [product[name] for name in total])
            total = dict(zip(total, added, strict=True))
        return total


def _merge_additive(curvatures: Sequence[Curvature]) -> list[Curvature]:
    """Returns the curvatures with those whose sum is exact added up, kind by kind."""
    sums: dict[type[Curvature], Curvature] = {}
    apart = []
    for curvature in curvatures:
        if not curvature.additive:
            apart.append(curvature)
        elif type(curvature) in sums:
            sums[type(curvature)] = sums[type(curvature)].plus(curvature)
        else:
            sums[type(curvature)] = curvature
    return [*sums.values(), *apart]
