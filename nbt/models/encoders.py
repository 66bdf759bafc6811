"""conv3 and conv4: the encoders of the zapping paper (Frati et al., arXiv 2310.07996), narrower by default.

Each block has a 3x3 convolution, an InstanceNorm with affine parameters, a ReLU and (except in conv3's last block)
max-pooling by 2. The features are the flattened map, as published, so their number depends on the image size.
InstanceNorm keeps no running statistics, so a frozen encoder is the same in training and evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

ENCODER_IMAGE_SIZES = {"conv3": 28, "conv4": 84}
"""Default image size of each encoder in pixels."""


def conv3(width: int = 32) -> list[tuple[str, nn.Module]]:
    """Returns the units of the Omniglot encoder: three blocks without padding, with pooling after the first two.

    Args:
        width: Number of channels. `conv3(width=256)` is the published size, with 2304 features at 28 px.
    """
    width = _check_width(width)
    return [
        ("block1", _conv_block(3, width, padding=0, pool=True)),
        ("block2", _conv_block(width, width, padding=0, pool=True)),
        ("block3", _conv_block(width, width, padding=0, pool=False)),
    ]


def conv4(width: int = 64) -> list[tuple[str, nn.Module]]:
    """Returns the units of the encoder for natural images of 84 px: four padded blocks, each with pooling.

    Args:
        width: Number of channels. `conv4(width=256)` is the published size, with 6400 features at 84 px.
    """
    width = _check_width(width)
    blocks = [_conv_block(3 if index == 0 else width, width, padding=1, pool=True) for index in range(4)]
    return [(f"block{index + 1}", block) for index, block in enumerate(blocks)]


def _check_width(width: int) -> int:
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width {width!r}: expected a whole number of channels, 1 or more")
    return width


def _conv_block(inputs: int, outputs: int, *, padding: int, pool: bool) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, 3, padding=padding),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)


ENCODER_BUILDERS: dict[str, Callable[..., list[tuple[str, nn.Module]]]] = {"conv3": conv3, "conv4": conv4}
"""Builders by name."""
