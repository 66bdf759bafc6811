"""Units: torchvision's classifiers read as an ordered list of units, a neck and a head.

A unit is the smallest piece that carries weights and passes one tensor on: a stem, a residual or transformer block, a
dense layer, a transition, a hidden classifier layer, a final normalisation. Run in order they are the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models as tv
from torchvision.models.convnext import CNBlock
from torchvision.models.densenet import _DenseBlock

from nbt.errors import UsageError

Named = tuple[str, nn.Module]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A model in pieces that share its modules.

    Attributes:
        units: Names and modules, in order from the input.
        neck: From the last unit's output to features, (N, D); without parameters.
        feature_dim: D.
        dropout: Probability of dropout between features and head.
        source_head: From the last unit's output to the model's own logits.
    """

    units: list[Named]
    neck: nn.Module
    feature_dim: int
    dropout: float
    source_head: nn.Module


class GlobalMean(nn.Module):
    """Mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean([2, 3])


class FirstToken(nn.Module):
    """The class token: (N, T, D) to (N, D)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


class ConcatenatingLayer(nn.Module):
    """A dense layer as a unit: passes on its input with its own new features behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([maps, self.layer(maps)], dim=1)


class PatchEmbedding(nn.Module):
    """Vision transformer's patches, class token and positions."""

    def __init__(self, model: tv.VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.pos_embedding = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(images).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embedding)  # type: ignore[no-any-return]


def decompose(model: nn.Module) -> Decomposition:
    """Reads a torchvision classifier as units.

    Args:
        model: The classifier; the pieces share its modules. Auxiliary heads of GoogLeNet and Inception are left out.

    Raises:
        UsageError: It is of a family that is not known here.
    """
    for family, read in _FAMILIES.items():
        if isinstance(model, family):
            return read(model)
    raise UsageError(f"backbone of class {type(model).__name__} cannot be read as ordered units")


_NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def _flatten(named: Iterable[Named], expand: tuple[type, ...] = ()) -> Iterator[Named]:
    """Yields the members of plain Sequentials (and of `expand`) in the place of these."""
    for name, module in named:
        if type(module) is nn.Sequential or isinstance(module, expand):
            yield from _flatten(((f"{name}.{child}", part) for child, part in module.named_children()), expand)
        else:
            yield name, module


def _group(named: Iterable[Named]) -> list[Named]:
    """Joins what follows a layer with weights (normalisation, activation, pooling) to it."""
    groups: list[tuple[str, list[nn.Module]]] = []
    for name, module in named:
        starts = any(True for _ in module.parameters()) and not isinstance(module, _NORMS)
        if starts or not groups:
            groups.append((name, [module]))
        else:
            groups[-1][1].append(module)
    return [(name, parts[0] if len(parts) == 1 else nn.Sequential(*parts)) for name, parts in groups]


def _children(model: nn.Module, *names: str) -> list[Named]:
    return [(name, model.get_submodule(name)) for name in names]


def _linear_head(units: list[Named], neck: nn.Module, head: nn.Module, dropout: float = 0.0) -> Decomposition:
    assert isinstance(head, nn.Linear)
    source_head = nn.Sequential(neck, nn.Dropout(dropout), head)
    return Decomposition(units, neck, head.in_features, dropout, source_head)


def _pool() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _resnet(model: tv.ResNet) -> Decomposition:
    parts = _children(model, "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return _linear_head(_group(_flatten(parts)), _pool(), model.fc)


def _features_then_linear(model: tv.MobileNetV2 | tv.EfficientNet) -> Decomposition:
    units = _group(_flatten(_children(model, "features")))
    return _linear_head(units, _pool(), model.classifier[1], model.classifier[0].p)


def _mobilenet_v3(model: tv.MobileNetV3) -> Decomposition:
    units = _group(_flatten(_children(model, "features")))
    hidden, activation, dropout, head = model.classifier
    units.append(("classifier.0", nn.Sequential(model.avgpool, nn.Flatten(), hidden, activation)))
    return _linear_head(units, nn.Identity(), head, dropout.p)


def _mnasnet(model: tv.MNASNet) -> Decomposition:
    units = _group(_flatten(_children(model, "layers")))
    return _linear_head(units, GlobalMean(), model.classifier[1], model.classifier[0].p)


def _shufflenet(model: tv.ShuffleNetV2) -> Decomposition:
    parts = _children(model, "conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")
    # conv1 and conv5 are convolution, normalisation, activation: flattened, they are joined again.
    return _linear_head(_group(_flatten(parts)), GlobalMean(), model.fc)


def _squeezenet(model: tv.SqueezeNet) -> Decomposition:
    """Its own head is a convolution before the pooling; a target's head is linear on pooled features."""
    units = _group(_flatten(_children(model, "features")))
    dropout, convolution = model.classifier[0], model.classifier[1]
    source_head = nn.Sequential(model.classifier, nn.Flatten())
    return Decomposition(units, _pool(), convolution.in_channels, dropout.p, source_head)


def _alexnet_or_vgg(model: tv.AlexNet | tv.VGG) -> Decomposition:
    units = _group(_flatten(_children(model, "features")))
    *hidden, head = list(model.classifier)
    dropout = 0.0
    if isinstance(hidden[-1], nn.Dropout):
        dropout = hidden.pop().p
    entry: list[nn.Module] = [model.avgpool, nn.Flatten()]
    for number, module in enumerate(hidden):
        if isinstance(module, nn.Linear):
            # What stands before a hidden layer (pooling, dropout) and its activation are one unit with it.
            units.append((f"classifier.{number}", nn.Sequential(*entry, module, hidden[number + 1])))
            entry = []
        elif isinstance(module, nn.Dropout):
            entry.append(module)
    return _linear_head(units, nn.Identity(), head, dropout)


def _densenet(model: tv.DenseNet) -> Decomposition:
    units: list[Named] = []
    stem: list[nn.Module] = []
    for name, module in model.features.named_children():
        if isinstance(module, _DenseBlock):
            layers = module.named_children()
            units += [(f"features.{name}.{layer}", ConcatenatingLayer(part)) for layer, part in layers]
        elif name.startswith("transition"):
            units.append((f"features.{name}", module))
        elif name == "norm5":
            units.append((f"features.{name}", nn.Sequential(module, nn.ReLU(inplace=True))))
        else:
            stem.append(module)
    return _linear_head([("features.conv0", nn.Sequential(*stem)), *units], _pool(), model.classifier)


def _convnext(model: tv.ConvNeXt) -> Decomposition:
    units: list[Named] = []
    for name, stage in model.features.named_children():
        if isinstance(stage[0], CNBlock):
            units += [(f"features.{name}.{block}", part) for block, part in stage.named_children()]
        else:
            units.append((f"features.{name}", stage))
    norm, flatten, head = model.classifier
    units.append(("classifier.0", nn.Sequential(model.avgpool, norm)))
    return _linear_head(units, flatten, head)


def _regnet(model: tv.RegNet) -> Decomposition:
    from torchvision.models.regnet import AnyStage

    units = _group(_flatten(_children(model, "stem", "trunk_output"), (AnyStage,)))
    return _linear_head(units, _pool(), model.fc)


def _vit(model: tv.VisionTransformer) -> Decomposition:
    units: list[Named] = [("embedding", PatchEmbedding(model))]
    units += [(f"encoder.{name}", layer) for name, layer in model.encoder.layers.named_children()]
    units.append(("encoder.ln", nn.Sequential(model.encoder.ln, FirstToken())))
    *hidden, head = list(model.heads)
    if hidden:
        units.append(("heads.pre_logits", nn.Sequential(*hidden)))
    return _linear_head(units, nn.Identity(), head)


def _swin(model: tv.SwinTransformer) -> Decomposition:
    units = _group(_flatten(_children(model, "features")))
    units.append(("norm", model.norm))
    return _linear_head(units, nn.Sequential(model.permute, model.avgpool, model.flatten), model.head)


def _maxvit(model: tv.MaxVit) -> Decomposition:
    units = _group(_flatten(_children(model, "stem")))
    for index, block in enumerate(model.blocks):
        units += [(f"blocks.{index}.{name}", layer) for name, layer in block.layers.named_children()]
    *hidden, head = list(model.classifier)
    units.append(("classifier.0", nn.Sequential(*hidden)))
    return _linear_head(units, nn.Identity(), head)


def _googlenet(model: tv.GoogLeNet) -> Decomposition:
    names = "conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a inception4b inception4c "
    names += "inception4d inception4e maxpool4 inception5a inception5b"
    return _with_transform(model, names.split())


def _inception(model: tv.Inception3) -> Decomposition:
    names = "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b Mixed_5c "
    names += "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c"
    return _with_transform(model, names.split())


def _with_transform(model: tv.GoogLeNet | tv.Inception3, names: list[str]) -> Decomposition:
    (first, module), *rest = _group(_children(model, *names))
    transform = _Rescale() if model.transform_input else nn.Identity()
    units = [(first, nn.Sequential(transform, module)), *rest]
    return _linear_head(units, _pool(), model.fc, model.dropout.p)


class _Rescale(nn.Module):
    """From ImageNet's mean and deviation to .5 and .5, channel by channel as torchvision's `transform_input` does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        channels = [torch.unsqueeze(images[:, i], 1) * (std[i] / 0.5) + (mean[i] - 0.5) / 0.5 for i in range(3)]
        return torch.cat(channels, 1)


_FAMILIES: dict[type[nn.Module], Callable[..., Decomposition]] = {
    tv.AlexNet: _alexnet_or_vgg,
    tv.VGG: _alexnet_or_vgg,
    tv.SqueezeNet: _squeezenet,
    tv.DenseNet: _densenet,
    tv.ResNet: _resnet,
    tv.MobileNetV2: _features_then_linear,
    tv.EfficientNet: _features_then_linear,
    tv.MobileNetV3: _mobilenet_v3,
    tv.MNASNet: _mnasnet,
    tv.ShuffleNetV2: _shufflenet,
    tv.RegNet: _regnet,
    tv.ConvNeXt: _convnext,
    tv.VisionTransformer: _vit,
    tv.SwinTransformer: _swin,
    tv.MaxVit: _maxvit,
    tv.GoogLeNet: _googlenet,
    tv.Inception3: _inception,
}
