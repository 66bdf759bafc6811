"""timm's plain vision transformers as ordered units: ViT, DeiT, DINO, image towers of CLIP and SigLIP, BEiT, EVA.

They are no chains of modules: class token, positions and pooling belong to none of their modules, and EVA and DINOv3
pass rotary positions to every block. The units are the patch embedding with tokens and positions, the blocks, the final
normalisation with the model's own pooling, and attention pooling where there is one. The first and the last unit run
the model's own `forward_features` or `forward_head` on a copy of the model that shares the modules and parameters of
the unit and has no others, so nbt repeats no computation of timm.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.models.units import NamedModule, has_weights

_CLASSES = ("VisionTransformer", "VisionTransformerDistilled", "Beit", "Eva")
_EMBEDDING = ("patch_embed", "cls_token", "dist_token", "reg_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre")
_OPTIONAL = ("rope", "rel_pos_bias")  # the forward passes of timm test whether they are None


class EmbeddingPart(nn.Module):
    """`forward_features` without blocks and final normalisation: images, (N, 3, H, W), to tokens, (N, T, D)."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Runs the part."""
        return self.part.forward_features(images)  # type: ignore[no-any-return]


class RotaryBlock(nn.Module):
    """A block with rotary positions: tokens, (N, T, D), to tokens."""

    def __init__(self, block: nn.Module, positions: torch.Tensor) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Runs the block."""
        return self.block(tokens, rope=self.positions)  # type: ignore[no-any-return]


class PoolingPart(nn.Module):
    """`forward_head` without the classifier: tokens, (N, T, D), to features, (N, D)."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Runs the part."""
        return self.part.forward_head(tokens, pre_logits=True)  # type: ignore[no-any-return]


def is_vision_transformer(model: nn.Module) -> bool:
    """Returns whether `vision_transformer_units` reads a model; subclasses with another forward pass are left out."""
    return type(model).__module__.startswith("timm.models.") and type(model).__name__ in _CLASSES


def vision_transformer_units(model: Any, image_size: int, text: str) -> tuple[list[NamedModule], nn.Module]:
    """Returns the units and the neck of a vision transformer without classifier; they share its modules and its mode.

    Args:
        model: A model for which `is_vision_transformer` holds, created with `num_classes=0` and `drop_rate=0`.
        image_size: Height and width in pixels.
        text: The backbone in messages.

    Raises:
        UsageError: Several blocks share parameters, as in BEiT with shared relative positions, or the arguments draw
            random numbers in training that must be the same in all blocks.
    """
    rope = getattr(model, "rope", None)
    if rope is not None and (model.patch_drop is not None or getattr(rope, "aug_active", False)):
        raise UsageError(
            f"backbone {text}: dropped patches and random rotary positions are the same in all blocks, but units are "
            "independent; leave these arguments out"
        )
    units: list[NamedModule] = [("patch_embed", EmbeddingPart(_part_of(model, *_EMBEDDING)))]
    positions = None if rope is None else rope.get_embed(shape=[image_size // patch_size(model)] * 2).detach()
    for index, block in enumerate(model.blocks):
        units.append((f"blocks.{index}", block if positions is None else RotaryBlock(block, positions)))
    pooling = PoolingPart(_part_of(model, "attn_pool", "fc_norm"))
    if has_weights(pooling):
        tail: list[NamedModule] = [("norm", model.norm), ("attn_pool", pooling)]
    else:
        tail = [("norm" if _has_parameters(model.norm) else "fc_norm", nn.Sequential(model.norm, pooling))]
    units += [(name, unit) for name, unit in tail if _has_parameters(unit)]
    neck = nn.Identity() if _has_parameters(tail[-1][1]) else tail[-1][1]
    placed = [id(parameter) for _, unit in units for parameter in unit.parameters()]
    if sorted(placed) != sorted(id(parameter) for parameter in model.parameters()):
        raise UsageError(
            f"backbone {text}: several blocks share parameters, so it cannot be read as ordered units; use another "
            "architecture"
        )
    for unit in (*(unit for _, unit in units), neck):
        unit.train(model.training)
    return units, neck


def patch_size(model: Any) -> int:
    """Returns the height and width of the patches in pixels that the images are divided into; 1 if it is unknown."""
    size = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(size[0] if isinstance(size, tuple | list) else size)


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _part_of(model: Any, *names: str) -> Any:
    """Returns a copy of a model that shares the named modules and parameters and has none of the others.

    Args:
        model: The model.
        names: Modules and parameters to keep; those that the model lacks are ignored.
    """
    part = copy.copy(model)
    part._modules, part._parameters = {}, {}
    for name, module in model._modules.items():
        neutral = None if name in _OPTIONAL else nn.Sequential()
        part._modules[name] = module if name in names else neutral
    for name, parameter in model._parameters.items():
        part._parameters[name] = parameter if name in names else None
    return part
