"""Batched augmentation on the device: a plan with random parameters per image is drawn first, then applied to batches.

Every policy includes the previous ones: "crop" is a random resized crop and a horizontal flip, "color" adds brightness,
contrast and saturation, "rand" adds two operations per image out of rotate, shear, translate, solarize, posterize and
autocontrast, similar to RandAugment (Cubuk et al., arXiv 1909.13719).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from nbt.devices import normalise
from nbt.settings import AUGMENTATIONS

_MIN_CROP_AREA = 0.5
_MAX_ASPECT_RATIO = 4 / 3
_JITTER_STRENGTH = 0.4
_RAND_OPERATIONS = ("rotate", "shear", "translate", "solarize", "posterize", "autocontrast")
_MAX_ROTATION = math.radians(30)
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 0.3


@dataclass(frozen=True)
class AugmentationPlan:
    """Augmentation parameters of n images; None skips a step for all images.

    Attributes:
        affine: Maps from output to input coordinates in -1 ... 1, (n, 2, 3).
        color: Factors of brightness, contrast and saturation, (n, 3); 1 means no change.
        tone: Solarize threshold (1 means no change), posterize levels (256 means no change) and autocontrast (0 or 1),
            (n, 3).
    """

    affine: torch.Tensor | None = None
    color: torch.Tensor | None = None
    tone: torch.Tensor | None = None

    def rows(self, index: torch.Tensor) -> AugmentationPlan:
        """Returns the plan of the images `index`, int64 (m,)."""
        tensors = (getattr(self, item.name) for item in fields(self))
        return AugmentationPlan(*(None if tensor is None else tensor[index.to(tensor.device)] for tensor in tensors))

    def to(self, device: torch.device) -> AugmentationPlan:
        """Returns the plan on a device."""
        tensors = (getattr(self, item.name) for item in fields(self))
        return AugmentationPlan(
            *(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in tensors)
        )


def draw_augmentation_plan(policy: str, n: int, rng: torch.Generator, *, mirror: bool = True) -> AugmentationPlan:
    """Draws the augmentation parameters of n images.

    Args:
        policy: One of `nbt.settings.AUGMENTATIONS`.
        n: Number of images.
        rng: CPU generator.
        mirror: Whether to flip each image horizontally with probability 0.5; False for images of characters.
    """
    level = AUGMENTATIONS.index(policy)
    if level == 0:
        return AugmentationPlan()
    affine = _draw_crop(n, rng, mirror)
    color = 1.0 + _JITTER_STRENGTH * (2.0 * torch.rand(n, 3, generator=rng) - 1.0) if level >= 2 else None
    if level < 3:
        return AugmentationPlan(affine, color)
    geometry, tone = _draw_operations(n, rng)
    return AugmentationPlan(affine @ geometry, color, tone)


def _uniform(n: int, low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, generator=rng)


def _draw_crop(n: int, rng: torch.Generator, mirror: bool) -> torch.Tensor:
    area = _uniform(n, _MIN_CROP_AREA, 1.0, rng)
    aspect = torch.exp(_uniform(n, -math.log(_MAX_ASPECT_RATIO), math.log(_MAX_ASPECT_RATIO), rng)).sqrt()
    width, height = (area.sqrt() * aspect).clamp(max=1.0), (area.sqrt() / aspect).clamp(max=1.0)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 2] = (1.0 - width) * _uniform(n, -1.0, 1.0, rng)
    affine[:, 1, 2] = (1.0 - height) * _uniform(n, -1.0, 1.0, rng)
    sign = 1.0 - 2.0 * (torch.rand(n, generator=rng) < 0.5).float() if mirror else torch.ones(n)
    affine[:, 0, 0] = width * sign
    affine[:, 1, 1] = height
    return affine


def _draw_operations(n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws two different operations per image; returns their geometry, (n, 3, 3), and their tone, (n, 3)."""
    chosen = torch.rand(n, len(_RAND_OPERATIONS), generator=rng).argsort(dim=1)[:, :2]
    selected = {name: (chosen == index).any(dim=1).float() for index, name in enumerate(_RAND_OPERATIONS)}
    angle = selected["rotate"] * _uniform(n, -_MAX_ROTATION, _MAX_ROTATION, rng)
    geometry = torch.eye(3).repeat(n, 1, 1)
    geometry[:, 0, 0], geometry[:, 1, 1] = angle.cos(), angle.cos()
    geometry[:, 0, 1], geometry[:, 1, 0] = -angle.sin(), angle.sin()
    shear = torch.eye(3).repeat(n, 1, 1)
    shear[:, 0, 1] = selected["shear"] * _uniform(n, -_MAX_SHEAR, _MAX_SHEAR, rng)
    geometry = geometry @ shear
    for axis in (0, 1):
        geometry[:, axis, 2] += selected["translate"] * _uniform(n, -_MAX_TRANSLATION, _MAX_TRANSLATION, rng)
    threshold = 1.0 - selected["solarize"] * _uniform(n, 0.0, 0.5, rng)
    bits = torch.randint(3, 7, (n,), generator=rng).float()
    levels = torch.where(selected["posterize"] > 0, 2.0**bits, torch.full((n,), 256.0))
    return geometry, torch.stack([threshold, levels, selected["autocontrast"]], dim=1)


def augment_and_normalise(
    images: torch.Tensor,
    plan: AugmentationPlan,
    mean: torch.Tensor,
    std: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Augments and normalises a batch.

    Args:
        images: uint8 (n, H, W, 3).
        plan: Augmentation plan of these images, on the same device.
        mean: Mean of pixel values in 0 ... 1, (3,).
        std: Standard deviation of these values, (3,).
        dtype: Type of the result; None is float32.

    Returns:
        Images (n, 3, H, W) in channels_last memory format.
    """
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    if plan.affine is not None:
        grid = F.affine_grid(plan.affine, list(pixels.shape), align_corners=False)
        pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    if plan.tone is not None:
        pixels = _change_tone(pixels, plan.tone)
    if plan.color is not None:
        pixels = _change_color(pixels, plan.color)
    pixels = normalise(pixels, mean, std)
    return pixels.to(dtype or torch.float32, memory_format=torch.channels_last)


def _change_color(pixels: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    brightness, contrast, saturation = (color[:, index].view(-1, 1, 1, 1) for index in range(3))
    pixels = pixels * brightness
    grey = _grey(pixels)
    mean_grey = grey.mean(dim=(2, 3), keepdim=True)
    # Saturation blends with the grey image, contrast with its mean; both are linear and fused into one expression.
    pixels = contrast * (saturation * pixels + (1.0 - saturation) * grey) + (1.0 - contrast) * mean_grey
    return pixels.clamp(0.0, 255.0)


def _change_tone(pixels: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
    threshold, levels, autocontrast = (tone[:, index].view(-1, 1, 1, 1) for index in range(3))
    pixels = torch.where(pixels > 255.0 * threshold, 255.0 - pixels, pixels)
    step = 256.0 / levels
    pixels = torch.where(step > 1.0, (pixels / step).floor() * step, pixels)
    low, high = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    stretched = (pixels - low) * (255.0 / (high - low).clamp(min=1.0))
    return torch.lerp(pixels, stretched, autocontrast)


def _grey(pixels: torch.Tensor) -> torch.Tensor:
    weights = pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)
