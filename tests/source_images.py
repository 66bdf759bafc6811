"""A small source for tests: images of the digits 0 to 4, and weights of conv3 with a classifier of them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from nbt.data.readers.digits import read_digits
from nbt.models.backbone import build_backbone
from nbt.models.backbone_spec import parse_backbone

BACKBONE = "conv3(width=8)"
PER_CLASS = 12


def save_source_images(folder: Path) -> Path:
    """Writes a folder of class folders with 12 images of each of the digits 0 to 4."""
    listing = read_digits(source=True)
    for label, name in enumerate(listing.class_names):
        (folder / name).mkdir(parents=True)
        for i in (listing.labels == label).nonzero()[0][:PER_CLASS].tolist():
            Image.fromarray(listing.items[i]).save(folder / name / f"{i}.png")
    return folder


@torch.no_grad()
def save_source_weights(path: Path) -> Path:
    """Writes random units with a head that the features of other images of the source were fitted to."""
    listing = read_digits(source=True)
    model = build_backbone(parse_backbone(BACKBONE), 5, image_size=28, seed=3)
    kept = torch.arange(len(listing.labels)) % 3 == 0
    pixels, labels = torch.from_numpy(listing.items)[kept], torch.from_numpy(listing.labels)[kept]
    images = torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2).float() / 255, (28, 28), mode="bilinear")
    features = model.features((images - 0.5) / 0.5)
    inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    targets = torch.nn.functional.one_hot(labels, 5).double()
    fitted = torch.linalg.solve(inputs.T @ inputs + torch.eye(inputs.shape[1]), inputs.T @ targets).float()
    model.head.weight.copy_(fitted[:-1].T)
    model.head.bias.copy_(fitted[-1])
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path
