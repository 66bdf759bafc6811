"""Backbones: any torchvision classifier, many of timm's, conv3 and conv4, as ordered units with a linear head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nbt.errors import UsageError
from nbt.models.backbone_spec import TIMM_PREFIX, BackboneSpec
from nbt.models.encoders import ENCODER_BUILDERS, ENCODER_IMAGE_SIZES
from nbt.models.units import Decomposition, decompose

_FALLBACK_IMAGE_SIZE = 224
# Their published weights take images rescaled from ImageNet's statistics; without a word on `init_weights` they warn
# of a change to come; their auxiliary heads would be built in vain.
_INCEPTION_ARGUMENTS = {"transform_input": True, "init_weights": True, "aux_logits": False}
_DEFAULT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "inception_v3": _INCEPTION_ARGUMENTS,
    "googlenet": _INCEPTION_ARGUMENTS,
}
_BUILD_ERRORS = (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError, AttributeError)


class Backbone(nn.Module):
    """A classifier for a target: units, neck, feature normalisation, dropout and a linear head.

    Every backbone has the same kind of head, linear on a feature vector, whatever its own classifier looks like, so
    that techniques and measures treat all alike.

    Attributes:
        units: In order from the input; each maps one tensor to one and leaves its input as it is.
        unit_names: Their names in the original model.
        neck: From the last unit's output to features, (N, D); without parameters.
        feature_norm: From features to what the head sees, (N, D); the identity, unless a technique puts its own here.
        dropout: Before the head, as the original model has it.
        head: From features to logits, (N, C).
        feature_dim: D.
    """

    def __init__(self, parts: Decomposition, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(module for _, module in parts.units)
        self.unit_names = tuple(name for name, _ in parts.units)
        self.neck = parts.neck
        self.feature_norm: nn.Module = nn.Identity()
        self.dropout = nn.Dropout(parts.dropout)
        self.feature_dim = feature_dim
        self.head = nn.Linear(feature_dim, n_classes)

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.units)

    def forward(self, hidden: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Maps images, (N, 3, H, W), to logits, (N, C); or, from unit `start` on, what is passed to that unit.

        With `start = n_units` the inputs are features, (N, D).
        """
        if start == len(self.units):
            return self.classify_features(hidden)
        return self.classify(self.forward_units(hidden, start))

    def forward_units(self, hidden: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Runs the units `start` ... `stop` - 1; all from `start` on when `stop` is None."""
        for unit in self.units[start:stop]:
            hidden = unit(hidden)
        return hidden

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images to features, (N, D), before any normalisation of them."""
        return self.neck(self.forward_units(images))  # type: ignore[no-any-return]

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps the last unit's output to logits, (N, C)."""
        return self.classify_features(self.neck(hidden))

    def classify_features(self, features: torch.Tensor) -> torch.Tensor:
        """Maps features, (N, D), to logits, (N, C)."""
        return self.head(self.dropout(self.feature_norm(features)))  # type: ignore[no-any-return]

    def unit_state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the state of the units, keys "units.I....", as tensors that the model goes on using."""
        return self.units.state_dict(prefix="units.")

    def load_pretrained(self, w0: Mapping[str, torch.Tensor]) -> None:
        """Loads the state of all units; the head stays as it is.

        Raises:
            RuntimeError: A key is missing, unexpected or of another shape.
        """
        self.units.load_state_dict({name.removeprefix("units."): tensor for name, tensor in w0.items()})


def build_backbone(spec: BackboneSpec, n_classes: int, *, image_size: int, seed: int = 0) -> Backbone:
    """Builds a backbone with random weights, in evaluation mode; torch's generators stay as they were.

    Args:
        spec: The architecture.
        n_classes: C.
        image_size: Height and width in pixels.
        seed: Of the weights: the units' by the architecture's own initialisation, the head's by `nn.Linear`'s.

    Raises:
        UsageError: The arguments do not fit the architecture, or the image size does not.
    """
    dim = feature_dim(spec, image_size)
    with _seeded_cpu_generator(seed):
        return Backbone(_decompose(spec, _build_library_model(spec), image_size), dim, n_classes).eval()


def random_unit_state(spec: BackboneSpec, image_size: int, seed: int) -> dict[str, torch.Tensor]:
    """Returns the units' state as the architecture initialises it: that of `build_backbone` with the same seed."""
    with _seeded_cpu_generator(seed):
        parts = _decompose(spec, _build_library_model(spec), image_size)
    return {name: tensor.detach() for name, tensor in unit_state_dict(parts).items()}


def unit_state_dict(parts: Decomposition) -> dict[str, torch.Tensor]:
    """Returns the units' parameters and buffers themselves, not copies, keys "units.I...."."""
    units = nn.ModuleList(module for _, module in parts.units)
    return units.state_dict(prefix="units.", keep_vars=True)


def build_on_meta_device(
    spec: BackboneSpec, image_size: int, n_classes: int | None = None
) -> tuple[nn.Module, Decomposition]:
    """Builds the library's own model on the meta device, where weights take neither memory nor time to draw.

    Args:
        spec: The architecture.
        image_size: Height and width in pixels.
        n_classes: Outputs of the library's classifier; its own number when None.

    Returns:
        The model, and its pieces, which share its modules.

    Raises:
        UsageError: The arguments do not fit the architecture.
    """
    with _seeded_cpu_generator(0):
        with _EmptyTensorsOnMeta():
            model = _build_library_model(spec, n_classes)
        model = model.to("meta")
        return model, _decompose(spec, model, image_size)


@lru_cache(maxsize=256)
def feature_dim(spec: BackboneSpec, image_size: int) -> int:
    """Returns the number D of features that a backbone has for images of `image_size` pixels, by a dry run.

    Raises:
        UsageError: The arguments do not fit the architecture, or the image size does not.
    """
    if image_size < 1:
        raise UsageError(f"image size {image_size}: expected 1 pixel or more")
    if spec.name in ENCODER_BUILDERS:
        # They are small enough to be run for once; the meta device makes torch import its compiler, for seconds.
        with _seeded_cpu_generator(0):
            parts = _decompose(spec, _build_library_model(spec), image_size)
        hidden = torch.zeros(2, 3, image_size, image_size)
    else:
        _, parts = build_on_meta_device(spec, image_size)
        hidden = torch.empty(2, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            for _, unit in parts.units:
                hidden = unit(hidden)
            return int(parts.neck(hidden).shape[1])
    except _BUILD_ERRORS as error:
        own = default_image_size(spec)
        raise UsageError(
            f"backbone {spec.text} cannot work on images of {image_size} px ({one_line_message(error)}); "
            f"its own size is {own}: --image-size {own}"
        ) from error


def default_image_size(spec: BackboneSpec) -> int:
    """Returns the image size in pixels that an architecture was made for.

    It is in its arguments, or known of its library weights; else it is 224.

    Raises:
        UsageError: timm has no such model.
    """
    if spec.name in ENCODER_IMAGE_SIZES:
        return ENCODER_IMAGE_SIZES[spec.name]
    given = spec.arguments.get("image_size") or spec.arguments.get("input_size")
    if spec.name.startswith(TIMM_PREFIX):
        from nbt.models.timm_units import timm_pretrained_config

        given = given or timm_pretrained_config(spec).image_size
    elif given is None and (weights := torchvision_default_weights(spec)) is not None:
        given = weights.transforms().crop_size
    size = given[-1] if isinstance(given, (tuple, list)) and given else given
    return size if isinstance(size, int) and size > 0 else _FALLBACK_IMAGE_SIZE


def torchvision_default_weights(spec: BackboneSpec) -> Any:
    """Returns torchvision's default weights of a builder (a member of its enum, not yet fetched); None without any."""
    if spec.name in ENCODER_BUILDERS or spec.name.startswith(TIMM_PREFIX):
        return None
    from torchvision.models import get_model_weights

    return getattr(get_model_weights(spec.name), "DEFAULT", None)


def one_line_message(error: Exception) -> str:
    """Returns what an error says, short and on one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _build_library_model(spec: BackboneSpec, n_classes: int | None = None) -> nn.Module:
    """Builds the library's own model with random weights, in evaluation mode."""
    arguments = {**_DEFAULT_ARGUMENTS.get(spec.name, {}), **spec.arguments}
    try:
        if spec.name in ENCODER_BUILDERS:
            return nn.Sequential(OrderedDict(ENCODER_BUILDERS[spec.name](**arguments))).eval()
        if spec.name.startswith(TIMM_PREFIX):
            from nbt.models.timm_units import build_timm_model

            return build_timm_model(spec)
        from torchvision.models import get_model

        if n_classes is not None:
            arguments["num_classes"] = n_classes
        model: nn.Module = get_model(spec.name, weights=None, **arguments)
    except UsageError:
        raise
    except _BUILD_ERRORS as error:
        raise UsageError(
            f"backbone {spec.text} cannot be built with these arguments ({one_line_message(error)})"
        ) from error
    return model.eval()


def _decompose(spec: BackboneSpec, model: nn.Module, image_size: int) -> Decomposition:
    if spec.name in ENCODER_BUILDERS:
        return Decomposition(list(model.named_children()), nn.Flatten(), 0.0, None)
    if spec.name.startswith(TIMM_PREFIX):
        from nbt.models.timm_units import decompose_timm_model

        return decompose_timm_model(spec, model, image_size)
    return decompose(model)


@contextmanager
def _seeded_cpu_generator(seed: int) -> Iterator[None]:
    """Seeds the generator of the CPU, from which weights are drawn; no generator of any device is changed after it."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too, which this fork does not put back.
        torch.default_generator.manual_seed(seed)
        yield


class _EmptyTensorsOnMeta(TorchFunctionMode):
    """Sends uninitialised tensors, as which all large weights begin, to the meta device.

    `with torch.device("meta")` would send everything, and some builders compute their widths with tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
