"""Backbones: torchvision's classifiers, many timm models, conv3 and conv4, as ordered units with a linear head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nbt.errors import UsageError, one_line_message
from nbt.models.backbone_spec import TIMM_PREFIX, BackboneSpec
from nbt.models.encoders import ENCODER_BUILDERS, ENCODER_IMAGE_SIZES
from nbt.models.units import Decomposition, decompose

_FALLBACK_IMAGE_SIZE = 224
_IMAGE_SIZE_ARGUMENTS = ("image_size", "input_size", "img_size")
_DRY_RUN_IMAGES = 2
_LAYERS_WITH_PRODUCTS = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
# The published weights of GoogLeNet and Inception expect images rescaled from ImageNet's statistics; without
# `init_weights` torchvision warns of a future change; the auxiliary heads are not used.
_INCEPTION_ARGUMENTS = {"transform_input": True, "init_weights": True, "aux_logits": False}
_DEFAULT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "inception_v3": _INCEPTION_ARGUMENTS,
    "googlenet": _INCEPTION_ARGUMENTS,
}
_BUILD_ERRORS = (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError, AttributeError)


class Backbone(nn.Module):
    """A classifier for the target: units, neck, feature normalisation, dropout and a linear head.

    Every backbone has a linear head on a feature vector, independent of the classifier of the original model, so
    that transfer techniques and fit measures treat all backbones alike.

    Attributes:
        units: The units in order from the input; each maps one tensor to one tensor and does not modify its input.
        unit_names: Names of the units in the original model.
        neck: Maps the last unit's output to features, (N, D); without parameters.
        feature_norm: Normalises the features before the head, (N, D); the identity unless a technique replaces it.
        dropout: Dropout before the head, as in the original model.
        head: Maps features to logits, (N, C).
        feature_dim: Number of features D.
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
        """Maps images, (N, 3, H, W), or the input of unit `start`, to logits, (N, C).

        With `start = n_units` the inputs are features, (N, D).
        """
        if start == len(self.units):
            return self.classify_features(hidden)
        return self.classify(self.forward_units(hidden, start))

    def forward_units(self, hidden: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Runs the units `start` ... `stop` - 1, or all units from `start` when `stop` is None."""
        for unit in self.units[start:stop]:
            hidden = unit(hidden)
        return hidden

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images to features, (N, D), before feature normalisation."""
        return self.neck(self.forward_units(images))  # type: ignore[no-any-return]

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps the last unit's output to logits, (N, C)."""
        return self.classify_features(self.neck(hidden))

    def classify_features(self, features: torch.Tensor) -> torch.Tensor:
        """Maps features, (N, D), to logits, (N, C)."""
        return self.head(self.dropout(self.feature_norm(features)))  # type: ignore[no-any-return]

    def unit_state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the units' state dict, keys "units.I....", which shares memory with the model."""
        return self.units.state_dict(prefix="units.")

    def load_pretrained(self, w0: Mapping[str, torch.Tensor]) -> None:
        """Loads the state of all units; the head is unchanged.

        Raises:
            RuntimeError: A key is missing, unexpected or of another shape.
        """
        self.units.load_state_dict({name.removeprefix("units."): tensor for name, tensor in w0.items()})


def build_backbone(spec: BackboneSpec, n_classes: int, *, image_size: int, seed: int = 0) -> Backbone:
    """Builds a backbone with random weights, in evaluation mode, without changing PyTorch's random generators.

    Args:
        spec: The architecture.
        n_classes: Number of classes C.
        image_size: Height and width in pixels.
        seed: Seed of the weights; the units use the architecture's own initialisation, the head that of `nn.Linear`.

    Raises:
        UsageError: The arguments or the image size do not fit the architecture.
    """
    dim = feature_dim(spec, image_size)
    with _seeded_cpu_generator(seed):
        return Backbone(_decompose(spec, _build_library_model(spec, image_size), image_size), dim, n_classes).eval()


def random_unit_state(spec: BackboneSpec, image_size: int, seed: int) -> dict[str, torch.Tensor]:
    """Returns the randomly initialised state of the units, equal to that of `build_backbone` with the same seed."""
    with _seeded_cpu_generator(seed):
        parts = _decompose(spec, _build_library_model(spec, image_size), image_size)
    return {name: tensor.detach() for name, tensor in unit_state_dict(parts).items()}


def unit_state_dict(parts: Decomposition) -> dict[str, torch.Tensor]:
    """Returns the units' parameters and buffers by name ("units.I....") without copying or detaching them."""
    units = nn.ModuleList(module for _, module in parts.units)
    return units.state_dict(prefix="units.", keep_vars=True)


def build_on_meta_device(
    spec: BackboneSpec, image_size: int, n_classes: int | None = None
) -> tuple[nn.Module, Decomposition]:
    """Builds the library's model on the meta device, which takes neither memory nor time for the weights.

    Args:
        spec: The architecture.
        image_size: Height and width in pixels.
        n_classes: Number of outputs of the library's classifier; the library's default when None.

    Returns:
        The model, and its decomposition, which shares its modules.

    Raises:
        UsageError: The arguments do not fit the architecture.
    """
    with _seeded_cpu_generator(0):
        with _EmptyTensorsOnMeta():
            model = _build_library_model(spec, image_size, n_classes)
        model = model.to("meta")
        return model, _decompose(spec, model, image_size)


@dataclass(frozen=True)
class UnitWork:
    """The work of a unit in a forward pass of one image, from which `nbt.tuning.relative_cost` estimates its duration.

    Attributes:
        products: Multiplications of the modules that are convolutions, linear layers or PyTorch's attention; those
            of functions are not counted.
        elements: Elements of the outputs of all layers; those of the layers that need several passes over the memory
            count more than once.
    """

    products: float
    elements: float


def feature_dim(spec: BackboneSpec, image_size: int) -> int:
    """Returns the number of features D of a backbone for images of `image_size` pixels, by a dry run.

    Raises:
        UsageError: The arguments or the image size do not fit the architecture.
    """
    return _dry_run(spec, image_size)[0]


def unit_work(spec: BackboneSpec, image_size: int) -> tuple[UnitWork, ...]:
    """Returns the work of each unit for images of `image_size` pixels, by the same dry run.

    Raises:
        UsageError: The arguments or the image size do not fit the architecture.
    """
    return _dry_run(spec, image_size)[1]


@lru_cache(maxsize=256)
def _dry_run(spec: BackboneSpec, image_size: int) -> tuple[int, tuple[UnitWork, ...]]:
    if image_size < 1:
        raise UsageError(f"image size {image_size}: expected 1 pixel or more")
    if spec.name in ENCODER_BUILDERS:
        # The encoders are small; the meta device would import PyTorch's compiler, which takes seconds.
        with _seeded_cpu_generator(0):
            parts = _decompose(spec, _build_library_model(spec, image_size), image_size)
        hidden = torch.zeros(_DRY_RUN_IMAGES, 3, image_size, image_size)
    else:
        _, parts = build_on_meta_device(spec, image_size)
        hidden = torch.empty(_DRY_RUN_IMAGES, 3, image_size, image_size, device="meta")
    work = []
    try:
        with torch.no_grad():
            for _, unit in parts.units:
                with _count_work(unit) as counted:
                    hidden = unit(hidden)
                work.append(UnitWork(*(count / _DRY_RUN_IMAGES for count in counted)))
            features = parts.neck(hidden)
    except _BUILD_ERRORS as error:
        default_size = default_image_size(spec)
        raise UsageError(
            f"backbone {spec.text} does not work with images of {image_size} px ({one_line_message(error)}); "
            f"use its default size: --image-size {default_size}"
        ) from error
    if features.ndim != 2:
        raise UsageError(f"backbone {spec.text} does not return one vector per image; leave out global_pool")
    return features.shape[1], tuple(work)


def _memory_passes(layer: nn.Module) -> int:
    """Returns how often the output of a layer counts, from a profile of conv3 on a CPU."""
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        return 8  # it copies the maps from channels_last and back
    if isinstance(layer, nn.modules.pooling._MaxPoolNd):
        return 16  # four per element of the input, for the indices and the scattered gradient, at a stride of 2
    return 1


@contextmanager
def _count_work(unit: nn.Module) -> Iterator[list[int]]:
    """Counts the products and the output elements of the layers of a unit that run inside the context."""
    counted = [0, 0]

    def count(layer: nn.Module, _: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(layer, _LAYERS_WITH_PRODUCTS):
            channels = output.shape[1 if isinstance(layer, nn.modules.conv._ConvNd) else -1]
            weights = sum(weight.numel() for weight in layer.parameters(recurse=False) if weight.ndim > 1)
            counted[0] += weights * output.numel() // channels
        counted[1] += _memory_passes(layer) * output.numel()

    layers = [m for m in unit.modules() if isinstance(m, _LAYERS_WITH_PRODUCTS) or not list(m.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield counted
    finally:
        for hook in hooks:
            hook.remove()


def default_image_size(spec: BackboneSpec) -> int:
    """Returns the default image size of an architecture in pixels.

    It is that of the arguments or of the library's default weights; otherwise it is 224.

    Raises:
        UsageError: timm has no such model.
    """
    if spec.name in ENCODER_IMAGE_SIZES:
        return ENCODER_IMAGE_SIZES[spec.name]
    configured = next((size for name in _IMAGE_SIZE_ARGUMENTS if (size := spec.arguments.get(name))), None)
    if spec.name.startswith(TIMM_PREFIX):
        from nbt.models.timm_units import timm_pretrained_config

        configured = configured or timm_pretrained_config(spec).input_size
    elif configured is None and (weights := torchvision_default_weights(spec)) is not None:
        configured = weights.transforms().crop_size
    size = configured[-1] if isinstance(configured, (tuple, list)) and configured else configured
    return size if isinstance(size, int) and size > 0 else _FALLBACK_IMAGE_SIZE


def torchvision_default_weights(spec: BackboneSpec) -> Any:
    """Returns the member of torchvision's enum of default weights, not yet downloaded; None if there are none."""
    if spec.name in ENCODER_BUILDERS or spec.name.startswith(TIMM_PREFIX):
        return None
    from torchvision.models import get_model_weights

    return getattr(get_model_weights(spec.name), "DEFAULT", None)


def _build_library_model(spec: BackboneSpec, image_size: int, n_classes: int | None = None) -> nn.Module:
    """Builds the library's model with random weights, in evaluation mode."""
    arguments = {**_DEFAULT_ARGUMENTS.get(spec.name, {}), **spec.arguments}
    try:
        if spec.name in ENCODER_BUILDERS:
            return nn.Sequential(OrderedDict(ENCODER_BUILDERS[spec.name](**arguments))).eval()
        if spec.name.startswith(TIMM_PREFIX):
            from nbt.models.timm_units import build_timm_model

            return build_timm_model(spec, image_size)
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
    """Seeds the CPU generator, from which weights are drawn, and restores it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the GPUs, which this fork does not restore.
        torch.default_generator.manual_seed(seed)
        yield


class _EmptyTensorsOnMeta(TorchFunctionMode):
    """Sends the tensors of torch.empty, with which all large weights begin, to the meta device.

    `with torch.device("meta")` would send all tensors, but some builders compute their widths with tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
