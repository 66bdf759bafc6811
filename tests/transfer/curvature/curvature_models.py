"""Small models in double precision, and their Jacobians by autograd, one sample and one output at a time."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from nbt.transfer.curvature.estimate import Curvature


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    """Returns linear layers with ReLUs between them, of which the first is in place."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU(inplace=not parts)]
    return nn.Sequential(*parts[:-1]).double().eval()


class Convs(nn.Module):
    """Convolutions of many kinds with normalisations, in-place ReLUs, a scale and a residual."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 8, (3, 2), padding="same", dilation=2, groups=2),
            nn.GroupNorm(2, 8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, padding=(0, 1), padding_mode="reflect", groups=8),
            nn.InstanceNorm2d(8, affine=True),  # its output is a view
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 6, 1, stride=(2, 3)),
        )
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.body(images) * self.scale
        return self.head(self.norm(hidden.flatten(2).mT).mean(dim=1))


def convs(seed: int = 0) -> Convs:
    """Returns the model in evaluation mode, with random parameters and running statistics."""
    torch.manual_seed(seed)
    model = Convs().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        norm = model.body[1]
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return model.eval()


def images(n: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(n, 2, 9, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def vectors(n: int, width: int, seed: int = 1) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that require gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def jacobian(model: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the Jacobian, (n, C, P), in the order of `named_parameters`."""
    parameters = list(trained(model).values())
    rows = []
    for sample in inputs:
        logits = model(sample[None])[0]
        for logit in logits:
            gradients = torch.autograd.grad(
                logit, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows).unflatten(0, (len(inputs), -1))


def dense(curvature: Curvature, model: nn.Module) -> Tensor:
    """Returns the curvature as a matrix, (P, P), computed column by column, in the order of `named_parameters`."""
    parameters = trained(model)
    total = sum(parameter.numel() for parameter in parameters.values())
    columns = []
    for unit in torch.eye(total, dtype=torch.double):
        product = curvature.multiply(unflatten(unit, model))
        columns.append(torch.cat([product[name].flatten() for name in parameters]))
    return torch.stack(columns, dim=1)


def unflatten(vector: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Returns the parts of a flat vector by parameter name."""
    parameters = trained(model)
    parts = vector.split([parameter.numel() for parameter in parameters.values()])
    return {name: part.view_as(p) for (name, p), part in zip(parameters.items(), parts, strict=True)}


def indices_of(model: nn.Module, *names: str) -> Tensor:
    """Returns the indices of parameters in a flat vector."""
    indices, start = [], 0
    for name, parameter in trained(model).items():
        if name in names:
            indices.append(torch.arange(start, start + parameter.numel()))
        start += parameter.numel()
    return torch.cat(indices)
