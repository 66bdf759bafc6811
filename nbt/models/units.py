"""Units: torchvision's classifiers decomposed into an ordered list of units, a neck and a head.

A unit is the smallest piece that has weights and passes on a single tensor: a stem, a residual or transformer block, a
dense layer, a transition, a hidden classifier layer, a final normalisation. Run in order, the units reproduce the
model. Pooling and activations belong to the unit before them, dropout to the unit after it. No unit modifies its input.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nbt.errors import UsageError

NamedModule = tuple[str, nn.Module]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The pieces of a model, which share its modules.

    Attributes:
        units: Names in the model and modules, in order from the input.
        neck: Maps the last unit's output to features, (N, D); without parameters.
        dropout: Probability of dropout between features and head.
        source_head: Maps the last unit's output to the model's logits in evaluation mode; its only child with
            parameters is called "head". None for a model without classifier.
    """

    units: list[NamedModule]
    neck: nn.Module
    dropout: float
    source_head: nn.Sequential | None


class GlobalAveragePool(nn.Module):
    """Mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean([2, 3])


class ClassTokenPool(nn.Module):
    """The class token: (N, T, D) to (N, D)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


class ConcatenatingLayer(nn.Module):
    """A dense layer as a unit: appends its new features to its input along the channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([maps, self.layer(maps)], dim=1)


class PatchEmbedding(nn.Module):
    """Patches, class token and positions of a vision transformer: (N, 3, H, W) to (N, T, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.image_size = model.image_size
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.pos_embedding = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"its positions are for {self.image_size} px")
        patches = self.conv_proj(images).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embedding)  # type: ignore[no-any-return]


class InceptionInputTransform(nn.Module):
    """Converts from ImageNet's statistics to mean .5 and standard deviation .5, as torchvision's `transform_input`."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        channels = [images[:, i].unsqueeze(1) * (std[i] / 0.5) + (mean[i] - 0.5) / 0.5 for i in range(3)]
        return torch.cat(channels, 1)


def decompose(model: nn.Module) -> Decomposition:
    """Decomposes a torchvision classifier into units.

    Args:
        model: The classifier; the pieces share its modules and its mode. The auxiliary heads of GoogLeNet and Inception
            are left out.

    Raises:
        UsageError: The model's family is not supported.
    """
    for base in type(model).__mro__:
        if base.__module__.startswith("torchvision.models.") and base.__name__ in _DECOMPOSERS:
            parts = _DECOMPOSERS[base.__name__](model)
            for module in (*(unit for _, unit in parts.units), parts.neck, parts.source_head):
                if module is not None:
                    module.train(model.training)
            return parts
    raise UsageError(f"a model of class {type(model).__name__} cannot be read as ordered units")


def flatten(named: Iterable[NamedModule]) -> Iterator[NamedModule]:
    """Yields modules with plain Sequentials replaced by their members, recursively."""
    for name, module in named:
        if type(module) is nn.Sequential:
            yield from flatten((f"{name}.{child}", part) for child, part in module.named_children())
        else:
            yield name, module


def group(named: Iterable[NamedModule]) -> list[NamedModule]:
    """Joins modules without weights (normalisation, activation, pooling) to the weight layer before them."""
    groups: list[tuple[str, list[nn.Module]]] = []
    for name, module in named:
        if not groups or has_weights(module):
            groups.append((name, [module]))
        else:
            groups[-1][1].append(module)
    return [(name, parts[0] if len(parts) == 1 else nn.Sequential(*parts)) for name, parts in groups]


def has_weights(module: nn.Module) -> bool:
    """Returns whether a module has weight matrices or filters; a normalisation has vectors only."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _submodules(model: nn.Module, *names: str) -> list[NamedModule]:
    return [(name, model.get_submodule(name)) for name in names]


def _layers(model: nn.Module, *names: str) -> list[NamedModule]:
    """Returns the units that submodules form when they are flattened."""
    return group(flatten(_submodules(model, *names)))


def _named_children(name: str, module: nn.Module) -> list[NamedModule]:
    return [(f"{name}.{child}", part) for child, part in module.named_children()]


def _with_linear_head(units: list[NamedModule], neck: nn.Module, head: Any, dropout: float = 0.0) -> Decomposition:
    return Decomposition(units, neck, dropout, nn.Sequential(OrderedDict(neck=neck, head=head)))


def _global_average_pool() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _resnet(model: Any) -> Decomposition:
    units = _layers(model, "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return _with_linear_head(units, _global_average_pool(), model.fc)


def _features_then_linear(model: Any) -> Decomposition:
    """Decomposes MobileNetV2 and EfficientNet."""
    units = _layers(model, "features")
    return _with_linear_head(units, _global_average_pool(), model.classifier[1], model.classifier[0].p)


def _mobilenet_v3(model: Any) -> Decomposition:
    units = _layers(model, "features")
    hidden, activation, dropout, head = model.classifier
    units.append(("classifier.0", nn.Sequential(model.avgpool, nn.Flatten(), hidden, activation)))
    return _with_linear_head(units, nn.Identity(), head, dropout.p)


def _mnasnet(model: Any) -> Decomposition:
    units = _layers(model, "layers")
    return _with_linear_head(units, GlobalAveragePool(), model.classifier[1], model.classifier[0].p)


def _shufflenet(model: Any) -> Decomposition:
    units = _layers(model, "conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")
    return _with_linear_head(units, GlobalAveragePool(), model.fc)


def _squeezenet(model: Any) -> Decomposition:
    """Decomposes SqueezeNet, whose source head is a convolution before the pooling; the target's head is linear."""
    units = _layers(model, "features")
    dropout, convolution, activation, pool = model.classifier
    source_head = nn.Sequential(OrderedDict(head=convolution, activation=activation, pool=pool, flatten=nn.Flatten()))
    return Decomposition(units, _global_average_pool(), dropout.p, source_head)


def _alexnet_or_vgg(model: Any) -> Decomposition:
    units = _layers(model, "features")
    *hidden, head = list(model.classifier)
    dropout = hidden.pop().p if isinstance(hidden[-1], nn.Dropout) else 0.0
    entry: list[nn.Module] = [model.avgpool, nn.Flatten()]
    for number, module in enumerate(hidden):
        if isinstance(module, nn.Linear):
            units.append((f"classifier.{number}", nn.Sequential(*entry, module, hidden[number + 1])))
            entry = []
        elif isinstance(module, nn.Dropout):
            entry.append(module)
    return _with_linear_head(units, nn.Identity(), head, dropout)


def _densenet(model: Any) -> Decomposition:
    features = model.features
    units: list[NamedModule] = [
        ("features.conv0", nn.Sequential(features.conv0, features.norm0, features.relu0, features.pool0))
    ]
    for name, module in features.named_children():
        if name.startswith("denseblock"):
            units += [(layer, ConcatenatingLayer(part)) for layer, part in _named_children(f"features.{name}", module)]
        elif name.startswith("transition"):
            units.append((f"features.{name}", module))
    units.append(("features.norm5", nn.Sequential(features.norm5, nn.ReLU(inplace=True))))
    return _with_linear_head(units, _global_average_pool(), model.classifier)


def _convnext(model: Any) -> Decomposition:
    """Decomposes ConvNeXt, whose stages are at odd positions, with stem and downsampling at even ones."""
    units: list[NamedModule] = []
    for number, (name, stage) in enumerate(_named_children("features", model.features)):
        units += _named_children(name, stage) if number % 2 else [(name, stage)]
    norm, flat, head = model.classifier
    units.append(("classifier.0", nn.Sequential(model.avgpool, norm)))
    return _with_linear_head(units, flat, head)


def _regnet(model: Any) -> Decomposition:
    units = _submodules(model, "stem")
    for name, stage in _named_children("trunk_output", model.trunk_output):
        units += _named_children(name, stage)
    return _with_linear_head(units, _global_average_pool(), model.fc)


def _vit(model: Any) -> Decomposition:
    units: list[NamedModule] = [
        ("conv_proj", PatchEmbedding(model)),
        *_named_children("encoder.layers", model.encoder.layers),
    ]
    units.append(("encoder.ln", nn.Sequential(model.encoder.ln, ClassTokenPool())))
    *hidden, head = list(model.heads)
    if hidden:
        units.append(("heads.pre_logits", nn.Sequential(*hidden)))
    return _with_linear_head(units, nn.Identity(), head)


def _swin(model: Any) -> Decomposition:
    units = _layers(model, "features")
    units.append(("norm", model.norm))
    return _with_linear_head(units, nn.Sequential(model.permute, model.avgpool, model.flatten), model.head)


def _maxvit(model: Any) -> Decomposition:
    units = _layers(model, "stem")
    for name, block in _named_children("blocks", model.blocks):
        units += _named_children(f"{name}.layers", block.get_submodule("layers"))
    *hidden, head = list(model.classifier)
    units.append(("classifier.3", nn.Sequential(*hidden)))
    return _with_linear_head(units, nn.Identity(), head)


def _googlenet(model: Any) -> Decomposition:
    return _inception_family(
        model,
        "conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a inception4b inception4c "
        "inception4d inception4e maxpool4 inception5a inception5b",
    )


def _inception(model: Any) -> Decomposition:
    return _inception_family(
        model,
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b Mixed_5c "
        "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c",
    )


def _inception_family(model: Any, names: str) -> Decomposition:
    """Decomposes a model into the submodules of the given names, which blanks separate."""
    (first, module), *rest = group(_submodules(model, *names.split()))
    transform = InceptionInputTransform() if model.transform_input else nn.Identity()
    units = [(first, nn.Sequential(transform, module)), *rest]
    return _with_linear_head(units, _global_average_pool(), model.fc, model.dropout.p)


_DECOMPOSERS: dict[str, Callable[[Any], Decomposition]] = {
    "AlexNet": _alexnet_or_vgg,
    "VGG": _alexnet_or_vgg,
    "SqueezeNet": _squeezenet,
    "DenseNet": _densenet,
    "ResNet": _resnet,
    "MobileNetV2": _features_then_linear,
    "EfficientNet": _features_then_linear,
    "MobileNetV3": _mobilenet_v3,
    "MNASNet": _mnasnet,
    "ShuffleNetV2": _shufflenet,
    "RegNet": _regnet,
    "ConvNeXt": _convnext,
    "VisionTransformer": _vit,
    "SwinTransformer": _swin,
    "MaxVit": _maxvit,
    "GoogLeNet": _googlenet,
    "Inception3": _inception,
}
"""Keyed by the name of torchvision's class, so that conv3 and conv4 do not import torchvision, which takes seconds."""
