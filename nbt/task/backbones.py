"""Backbones: any torchvision classifier, conv3 and conv4, as ordered units with a neck and a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.task.backbone_names import BackboneSpec
from nbt.task.encoders import DEFAULT_SIZES, ENCODERS
from nbt.task.units import Decomposition, decompose

DEFAULT_IMAGE_SIZE = 224
# As torchvision's own weights have them; without `init_weights` they warn of a change to come.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "inception_v3": {"init_weights": True, "transform_input": True},
    "googlenet": {"init_weights": True, "transform_input": True},
}


class Backbone(nn.Module):
    """A classifier for a target: units, neck, dropout and a linear head.

    Every backbone has the same kind of head, linear on a feature vector, whatever its own classifier looks like, so
    that techniques and measures treat all alike.

    Attributes:
        units: In order from the input; each maps one tensor to one.
        unit_names: Their names in the original model.
        neck: From the last unit's output to features, (N, D); without parameters.
        dropout: Between features and head.
        head: From features to logits, (N, C).
        feature_dim: D.
    """

    def __init__(self, parts: Decomposition, n_classes: int, image_size: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(module for _, module in parts.units)
        self.unit_names = tuple(name for name, _ in parts.units)
        self.neck = parts.neck
        self.dropout = nn.Dropout(parts.dropout)
        self.feature_dim = parts.feature_dim
        self.image_size = image_size
        self.head = nn.Linear(parts.feature_dim, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images, (N, 3, H, W), to logits, (N, C)."""
        return self.classify(self.forward_units(images))

    def forward_units(self, hidden: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Runs the units `start` ... `stop` - 1; all from `start` on when `stop` is None."""
        for unit in self.units[start:stop]:
            hidden = unit(hidden)
        return hidden

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images to features, (N, D)."""
        return self.neck(self.forward_units(images))  # type: ignore[no-any-return]

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps the last unit's output to logits, (N, C)."""
        return self.head(self.dropout(self.neck(hidden)))  # type: ignore[no-any-return]

    def unit_state(self) -> dict[str, torch.Tensor]:
        """Returns the state of the units, keys "units.I....", as tensors that the model goes on using."""
        return self.units.state_dict(prefix="units.")

    def load_pretrained(self, w0: Mapping[str, torch.Tensor]) -> None:
        """Loads the state of all units; the head stays as it is.

        Raises:
            RuntimeError: A key is missing, unexpected or of another shape.
        """
        self.units.load_state_dict({name.removeprefix("units."): tensor for name, tensor in w0.items()})


def build_model(spec: BackboneSpec, seed: int) -> nn.Module:
    """Builds torchvision's own model with random weights; torch's generator stays as it was.

    Args:
        spec: Not conv3 or conv4.
        seed: Of the weights.

    Raises:
        UsageError: The arguments do not fit the architecture.
    """
    from torchvision.models import get_model

    arguments = {**_ARGUMENTS.get(spec.name, {}), **spec.arguments}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = get_model(spec.name, weights=None, **arguments)
        except (TypeError, ValueError, AssertionError, RuntimeError, IndexError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"backbone {spec.text}: it cannot be built ({reason})") from error
    return model.eval()


def read_units(spec: BackboneSpec, image_size: int, seed: int) -> Decomposition:
    """Returns a new model with random weights in pieces.

    Raises:
        UsageError: The arguments do not fit the architecture, or the image size does not.
    """
    if spec.name not in ENCODERS:
        return decompose(build_model(spec, seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            units = ENCODERS[spec.name](**spec.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"backbone {spec.text}: it cannot be built ({error}); it takes width") from error
    neck = nn.Flatten()
    dim = _feature_dim(spec, units, neck, image_size)
    return Decomposition(units, neck, dim, 0.0, nn.Identity())


def build_backbone(spec: BackboneSpec, n_classes: int, *, image_size: int, seed: int = 0) -> Backbone:
    """Builds a backbone with random weights, in evaluation mode; torch's generator stays as it was.

    Args:
        spec: The architecture.
        n_classes: C, 2 or more.
        image_size: Height and width in pixels.
        seed: Of the weights, drawn as the library draws them.

    Raises:
        UsageError: The arguments do not fit the architecture, or the image size does not.
    """
    parts = read_units(spec, image_size, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(parts, n_classes, image_size).eval()


def check_image_size(spec: BackboneSpec, model: Backbone) -> None:
    """Runs one blank image through a backbone, to see an impossible image size before anything else is done.

    Raises:
        UsageError: The backbone does not take images of its `image_size`.
    """
    _feature_dim(spec, list(zip(model.unit_names, model.units, strict=True)), model.neck, model.image_size)


@torch.no_grad()
def _feature_dim(spec: BackboneSpec, units: list[tuple[str, nn.Module]], neck: nn.Module, image_size: int) -> int:
    hidden = torch.zeros(1, 3, image_size, image_size)
    try:
        for _, unit in units:
            hidden = unit.eval()(hidden)
        return int(neck(hidden).shape[1])
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"backbone {spec.text} does not work at --image-size {image_size} ({' '.join(str(error).split())[:120]}); "
            f"its own is {default_image_size(spec)}"
        ) from error


def default_image_size(spec: BackboneSpec) -> int:
    """Returns the image size in pixels that a backbone's library weights were made for, else 224."""
    if spec.name in DEFAULT_SIZES:
        return DEFAULT_SIZES[spec.name]
    if "image_size" in spec.arguments:
        return int(spec.arguments["image_size"])
    transform = library_transform(spec)
    size = getattr(transform, "crop_size", [DEFAULT_IMAGE_SIZE])
    return int(size[0])


def library_transform(spec: BackboneSpec) -> Any:
    """Returns the preset of transforms of torchvision's default weights, None where it has none."""
    weights = library_weights(spec)
    return None if weights is None else weights.transforms()


def library_weights(spec: BackboneSpec) -> Any:
    """Returns torchvision's default weights of an architecture (not yet fetched), None where it has none."""
    if spec.name in ENCODERS:
        return None
    from torchvision.models import get_model_weights

    return getattr(get_model_weights(spec.name), "DEFAULT", None)
