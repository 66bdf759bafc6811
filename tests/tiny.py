"""A small model with the features that transfer must handle: BatchNorm, biases, and units of several depths."""

from __future__ import annotations

import torch
from torch import nn


class TinyNet(nn.Module):
    """Four units (three convolutional with BatchNorm, one with a bias only) and a linear head; 3-channel images."""

    def __init__(self, n_classes: int = 3, width: int = 6) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
                nn.Sequential(nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
                nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU()),
                nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)),
            ]
        )
        self.neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for unit in self.units:
            images = unit(images)
        return self.head(self.dropout(self.neck(images)))


def unit_state_dict(model: TinyNet) -> dict[str, torch.Tensor]:
    """Returns a copy of the units' state with the keys of w0."""
    return {name: tensor.clone() for name, tensor in model.units.state_dict(prefix="units.").items()}
