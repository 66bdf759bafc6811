"""Model folders: a trained model with all that is needed to use it, and predictions from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nbt._version import __version__
from nbt.data.image_store import decode_images
from nbt.devices import autocast, inference_batch_size, pick_device
from nbt.errors import UsageError
from nbt.models.backbone import Backbone, build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.model_folder import CARD_FILE, WEIGHTS_FILE, replace_folder
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise
from nbt.transfer.fast import FeatureNorm, make_feature_norm
from nbt.transfer.linearize import FirstOrder

FORMAT = 1
NORM_FORMAT = 2
"""Of a model that standardises its features; a reader that knows only format 1 must not use it without them."""
LINEARIZED_FORMAT = 3
"""Of the expansion of a model, which has weights and those that it is expanded around."""

_FORMATS = (FORMAT, NORM_FORMAT, LINEARIZED_FORMAT)
_BATCH_SIZE = 64
# Files that are decoded before they are classified, of 224 px and less: a thousand of them take 150 MB.
_DECODE_CHUNK_SIZE = 1024


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        path: The image.
        label: Most likely class; "" where the image cannot be read.
        probability: Of that class, 0 ... 1.
        top: The likeliest classes with their probabilities, best first.
        error: Why the image cannot be read, else "".
    """

    path: str
    label: str = ""
    probability: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""


def export_model(model: Backbone | FirstOrder, task: Task, settings: TransferSettings, folder: Path) -> None:
    """Writes a model folder, whole or not at all; an older one of the same name is replaced.

    Args:
        model: The trained model, or the expansion of one.
        task: What it was trained on: classes, image size, normalisation.
        settings: How it was trained.
        folder: Where to; missing, empty, or a model folder. Its parents are made.

    Raises:
        UsageError: The folder holds something else, which stays as it is, or cannot be written.
    """
    from safetensors.torch import save_file

    backbone = model.model if isinstance(model, FirstOrder) else model
    norm = backbone.feature_norm.mode if isinstance(backbone.feature_norm, FeatureNorm) else "none"
    card = {
        "format": FORMAT if norm == "none" else NORM_FORMAT,
        "nbt": __version__,
        "backbone": task.backbone.text,
        "image_size": task.image_size,
        "mean": list(task.mean),
        "std": list(task.std),
        "class_names": list(task.class_names),
        "dataset": Path(task.dataset).name,
        "settings": settings.to_dict(),
    }
    if norm != "none":
        card["feature_norm"] = norm
    if isinstance(model, FirstOrder):
        card |= {"format": LINEARIZED_FORMAT, "linearized": True}
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with replace_folder(folder) as place:
        save_file(state, place / WEIGHTS_FILE)
        (place / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """Returns what a model folder says of itself.

    Raises:
        UsageError: It is not a model folder, or of a newer format.
    """
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is not a model folder of nbt ({CARD_FILE}: {error})") from error
    if not isinstance(card, dict) or card.get("format") not in _FORMATS:
        found = card.get("format") if isinstance(card, dict) else card
        known = ", ".join(map(str, _FORMATS))
        raise UsageError(f"{path}: format {found!r} cannot be read by nbt {__version__}, which reads {known}")
    return card


def load_model(folder: Path) -> tuple[Backbone | FirstOrder, dict[str, Any]]:
    """Returns the model of a folder, in evaluation mode on the CPU, and its card.

    Raises:
        UsageError: The folder is not a model folder, or its weights do not fit its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(folder)
    spec = parse_backbone(card["backbone"])
    backbone = build_backbone(spec, len(card["class_names"]), image_size=card["image_size"])
    backbone.feature_norm = make_feature_norm(card.get("feature_norm", "none"), backbone.feature_dim)
    model = FirstOrder(backbone) if card.get("linearized") else backbone
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder / WEIGHTS_FILE}: the weights cannot be loaded ({reason})") from error
    return model.eval(), card


@torch.no_grad()
def predict(folder: Path, images: Sequence[Path], *, top: int = 5, device: str | None = None) -> list[Prediction]:
    """Classifies image files with an exported model.

    Args:
        folder: Model folder that `nbt search` or `nbt train --export` wrote.
        images: Files; unreadable ones get a prediction that says so.
        top: How many of the likeliest classes to give.
        device: As in `pick_device`.

    Returns:
        One prediction an image, in the order given.
    """
    model, card = load_model(folder)
    where = pick_device(device)
    model = model.to(where).to(memory_format=torch.channels_last)
    names, size = card["class_names"], card["image_size"]
    files = list(dict.fromkeys(images))
    found: dict[Path, torch.Tensor] = {}
    batch_size = inference_batch_size(_DECODE_CHUNK_SIZE, size)
    for start in range(0, len(files), batch_size):
        part = files[start : start + batch_size]
        store, kept = decode_images(part, size, cache=False)
        probabilities = _classify(model, np.asarray(store.array), card, where)
        found.update(zip((part[row] for row in kept.tolist()), probabilities, strict=True))
    return [_prediction(path, found.get(path), names, top) for path in images]


def _classify(
    model: nn.Module, pixels: np.ndarray[Any, Any], card: dict[str, Any], device: torch.device
) -> torch.Tensor:
    mean, std = torch.tensor(card["mean"], device=device), torch.tensor(card["std"], device=device)
    batch_size = inference_batch_size(_BATCH_SIZE, card["image_size"])
    batches = []
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(pixels[start : start + batch_size]).to(device)
        with autocast(device):
            logits = model(augment_and_normalise(batch, AugmentationPlan(), mean, std))
        batches.append(logits.float().softmax(dim=1).cpu())
    return torch.cat(batches) if batches else torch.empty(0, len(card["class_names"]))


def _prediction(path: Path, probabilities: torch.Tensor | None, names: list[str], top: int) -> Prediction:
    if probabilities is None:
        return Prediction(str(path), error="cannot be read as an image")
    values, classes = probabilities.topk(min(top, len(names)))
    best = tuple((names[c], float(v)) for v, c in zip(values, classes.tolist(), strict=True))
    return Prediction(str(path), best[0][0], best[0][1], best)
