"""Source models that are trained once by a scheme of the zapping paper and cached by their recipe.

See Frati et al., arXiv 2310.07996. The default source of `digits`, which `fine_tune` trains, is in
`nbt.training.digits_source`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbt.data.resolve import resolve
from nbt.models.backbone_spec import BackboneSpec
from nbt.models.weights import PretrainedWeights, SourceClassMeans, load_pretrained_weights
from nbt.paths import cache_folder
from nbt.progress import Progress
from nbt.settings import TransferSettings
from nbt.settings.pretrain import PretrainSettings, default_pretrain_settings
from nbt.training.pretrain.source_cache import (
    CLASS_MEAN_KEYS,
    HEAD_KEYS,
    State,
    read_source,
    read_source_metadata,
    write_source,
)
from nbt.training.pretrain.source_images import SourceImages, load_source_images
from nbt.training.pretrain.source_trainer import SourceTrainer

_RECIPE_VERSION = 2


def _source_settings() -> TransferSettings:
    return TransferSettings(optimizer="adamw", head_lr=1e-3, body_lr=1e-3, batch_size=64, decay_strength=0.0, epochs=15)


@dataclass(frozen=True, kw_only=True)
class SourceRecipe:
    """All values that determine the weights of a source; its hash is the name of the cache file.

    Attributes:
        backbone: Canonical text of the backbone.
        image_size: Height and width in pixels.
        settings: Settings of the training from random weights, with `fine_tune` or with a scheme.
        images: Training images: the name of the embedded source, or `SourceImages.digest`.
        seed: Seed of initialisation and training.
        version: Version of the training code, increased when the same recipe gives different weights.
    """

    backbone: str
    image_size: int
    settings: TransferSettings | PretrainSettings = field(default_factory=_source_settings)
    images: str = "digits source"
    seed: int = 0
    version: int = _RECIPE_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe in plain types."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "settings": self.settings.to_dict()}

    def hash(self) -> str:
        """Returns the hash of the recipe, 20 hexadecimal digits."""
        values = self.to_dict() | {"settings": self.settings.identity()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def path(self) -> Path:
        """The source's file in the cache folder, which is created."""
        return cache_folder("sources") / f"{self.hash()}.safetensors"


@dataclass(frozen=True, eq=False)
class PretrainedSource:
    """A pretrained source model.

    Attributes:
        recipe: Recipe of the source.
        weights: Weights of the units, the source's classifier and class means.
        state: All tensors of the cache file, by name.
        loss: Mean loss of the last epoch, or loss of the last episode before its last step, in nats.
        accuracy: Accuracy on the source's training images, 0 ... 1.
        seconds: Wall-clock time of the training in this call; 0 if the source was in the cache.
    """

    recipe: SourceRecipe
    weights: PretrainedWeights
    state: State
    loss: float
    accuracy: float
    seconds: float


def pretrain(
    images: SourceImages,
    spec: BackboneSpec,
    settings: PretrainSettings,
    seed: int = 0,
    *,
    device: str | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Progress | None = None,
) -> PretrainedSource:
    """Returns a source that is trained by a scheme, from the cache if it is there.

    An interrupted training resumes from its checkpoint in the cache folder.

    Args:
        images: Training images.
        spec: The backbone.
        settings: Scheme and its settings.
        seed: Seed of the initialisation, the order and the zaps, 0 or more.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.
        checkpoint_seconds: Minimum time between two writes of the checkpoint.
        progress: Called as progress(description, rounds done, number of rounds); a round is an epoch or an episode.

    Raises:
        UsageError: The scheme does not apply to the backbone, or the backbone does not accept the image size.
        NbtError: The training diverged, or the cache cannot be written.
    """
    size = int(images.pixels.shape[1])
    recipe = SourceRecipe(backbone=spec.text, image_size=size, settings=settings, images=images.digest, seed=seed)
    path = recipe.path
    random_weights = load_pretrained_weights(spec, "none", image_size=size, seed=seed)
    state, started = read_source(path, random_weights.w0), time.perf_counter()
    cached = state is not None
    if state is None:
        trainer = SourceTrainer(images, spec, random_weights, settings, seed, device=device)
        checkpoint = path.with_suffix(".checkpoint")
        description = f"pretraining on {images.name} ({settings.scheme})"
        trainer.run(
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            progress=None if progress is None else lambda done, total: progress(description, done, total),
        )
        state = _evaluate_and_cache(trainer, recipe)
        checkpoint.unlink(missing_ok=True)
    card = read_source_metadata(path)
    return PretrainedSource(
        recipe=recipe,
        weights=to_pretrained_weights(state, random_weights, images.class_names),
        state=state,
        loss=card["loss"],
        accuracy=card["accuracy"],
        seconds=0.0 if cached else time.perf_counter() - started,
    )


def _evaluate_and_cache(trainer: SourceTrainer, recipe: SourceRecipe) -> State:
    """Evaluates the trained source, writes it to the cache and returns its tensors."""
    accuracy, *class_means = trainer.evaluate()
    state = {name: tensor.detach().cpu() for name, tensor in trainer.model.state_dict().items()}
    state.update(zip(CLASS_MEAN_KEYS, class_means, strict=True))
    card = {
        "recipe": recipe.to_dict(),
        "loss": trainer.loss,
        "accuracy": accuracy,
        "classes": list(trainer.images.class_names),
    }
    write_source(recipe.path, state, card)
    return state


def digits_scheme_source(
    spec: BackboneSpec, image_size: int, *, scheme: str, zap_period: int, progress: Progress | None = None
) -> PretrainedWeights:
    """Returns the weights of an encoder that a scheme trains once on the digits 0-4 and caches.

    Args:
        spec: The backbone.
        image_size: Height and width in pixels.
        scheme: One of `nbt.settings.PRETRAIN_SCHEMES`.
        zap_period: Epochs ("iid") or episodes between zaps; 0 disables them; see `PretrainSettings`.
        progress: Called as progress(description, done, total) while the source is trained.

    Raises:
        UsageError: The scheme is unknown, or the zap period is too long for the training.
    """
    settings = default_pretrain_settings(scheme, spec.name, digits=True, zap_period=zap_period)
    return pretrain(load_source_images(resolve("digits"), image_size), spec, settings, progress=progress).weights


def to_pretrained_weights(
    state: State, random_weights: PretrainedWeights, class_names: tuple[str, ...]
) -> PretrainedWeights:
    """Returns the weights of a source from the tensors of its cache file.

    Args:
        state: All tensors of the cache file, by name.
        random_weights: Random weights of the same backbone, with the normalisation of its images.
        class_names: Names of the source's classes.
    """
    means, counts = (state[name].numpy() for name in CLASS_MEAN_KEYS)
    return dataclasses.replace(
        random_weights,
        w0={name: state[name] for name in random_weights.w0},
        source_head={name: state[name] for name in HEAD_KEYS},
        source_means=SourceClassMeans(means, counts, class_names),
    )
