"""The classes of the source: which class each output of the source's classifier stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError
from nbt.models.backbone_spec import BackboneSpec

if TYPE_CHECKING:
    import torch

    from nbt.models.weights import SourceClassMeans

# As `nbt.training.export` writes them.
_CARD_FILE, _WEIGHTS_FILE = "model.json", "weights.safetensors"
_CARD_KEY = "nbt"


@dataclass(frozen=True)
class SourceClasses:
    """The outputs of the source's classifier.

    Attributes:
        count: Number of outputs C_s.
        names: Names of the classes, (C_s,); empty where they are not known.
    """

    count: int
    names: tuple[str, ...] = ()


def source_classes(
    spec: BackboneSpec,
    weights: str,
    head: Mapping[str, torch.Tensor] | None,
    means: SourceClassMeans | None = None,
) -> SourceClasses:
    """Returns the classes of the source's classifier of pretrained weights.

    Their names are those of sources that nbt trained, of the card of an exported model, or else of the library's
    weights if these have as many classes: a file with a classifier of 1000 classes is taken to have those of ImageNet.

    Args:
        spec: The architecture.
        weights: "default", "none" or the path of a file.
        head: State of the classifier, see `nbt.models.weights.PretrainedWeights`.
        means: Mean features of the source's classes, if known.

    Raises:
        UsageError: The weights have no classifier.
    """
    if head is None:
        reason = "are random" if weights == "none" else "have no linear classifier of their source's classes"
        raise UsageError(
            f"the weights of {spec.text} {reason}, so that no source accuracy can be measured; give weights with "
            "their classifier, or leave out --source-data"
        )
    count = len(head["head.weight"])
    known = (() if means is None else means.class_names, _card_names(weights), _library_names(spec))
    return SourceClasses(count, next((names for names in known if len(names) == count), ()))


def _card_names(weights: str) -> tuple[str, ...]:
    """Returns the class names of a model that nbt exported, in a folder or as one file; none for other files."""
    path = Path(weights)
    if weights in ("default", "none") or path.suffix != ".safetensors":
        return ()
    card: Any = None
    if path.name == _WEIGHTS_FILE:
        with suppress(OSError, ValueError):
            card = json.loads(path.with_name(_CARD_FILE).read_text(encoding="utf-8"))
    else:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(_CARD_KEY, "null"))
    names = card.get("class_names") if isinstance(card, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _library_names(spec: BackboneSpec) -> tuple[str, ...]:
    """Returns the class names of torchvision's weights; none for other libraries."""
    from nbt.models.backbone import torchvision_default_weights

    library = torchvision_default_weights(spec)
    return () if library is None else tuple(library.meta.get("categories") or ())
