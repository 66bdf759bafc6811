"""conv3 and conv4: sizes, types and order of layers, as in the zapping paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nbt.models.encoders import ENCODER_BUILDERS, conv3, conv4


def _kinds(block: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in block.children()]


@pytest.mark.parametrize(("name", "size", "shapes"), [("conv3", 28, [13, 5, 3]), ("conv4", 84, [42, 21, 10, 5])])
def test_maps_shrink_as_published(name: str, size: int, shapes: list[int]) -> None:
    hidden = torch.randn(2, 3, size, size)
    sizes = []
    for _, block in ENCODER_BUILDERS[name](width=8):
        hidden = block(hidden)
        assert hidden.shape[1] == 8
        sizes.append(hidden.shape[2])
    assert sizes == shapes


def test_conv3_pools_twice_and_conv4_after_every_block() -> None:
    block = ["Conv2d", "InstanceNorm2d", "ReLU"]
    assert [_kinds(part) for _, part in conv3()] == [[*block, "MaxPool2d"], [*block, "MaxPool2d"], block]
    assert [_kinds(part) for _, part in conv4()] == [[*block, "MaxPool2d"]] * 4
    norms = [layer for _, part in conv3() for layer in part.children() if isinstance(layer, nn.InstanceNorm2d)]
    assert all(norm.affine and not norm.track_running_stats for norm in norms)


def test_default_widths() -> None:
    assert conv3()[0][1].get_submodule("0").weight.shape == (32, 3, 3, 3)
    assert conv4()[3][1].get_submodule("0").weight.shape == (64, 64, 3, 3)


@pytest.mark.parametrize("width", [0, -2, 2.5, "8", None])
def test_an_invalid_width_is_refused(width: object) -> None:
    for build in ENCODER_BUILDERS.values():
        with pytest.raises(ValueError, match="expected a whole number of channels"):
            build(width=width)
