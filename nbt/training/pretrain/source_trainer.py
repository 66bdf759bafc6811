"""Training of a source model with a scheme, in rounds (epochs or episodes) after which it can stop and resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nbt.devices import INFERENCE_BATCH_SIZE, flush_denormals, inference_batch_size, normalise, pick_device
from nbt.errors import NbtError, UsageError
from nbt.models.backbone import Backbone, build_backbone
from nbt.models.backbone_spec import BackboneSpec
from nbt.models.weights import PretrainedWeights
from nbt.seeds import derive_seed, generator
from nbt.settings.pretrain import PretrainSettings
from nbt.training.checkpoint import checkpoint_identity, load_checkpoint, save_checkpoint
from nbt.training.pretrain.episodes import draw_episode, meta_loss, sequential_steps
from nbt.training.pretrain.source_images import SourceImages
from nbt.training.recipe.eager_optimizers import Adam
from nbt.transfer.zap import draw_zapped_classes, zap

_PROGRESS_INTERVAL_SECONDS = 0.2


class SourceTrainer:
    """Trains a source model from random weights.

    All randomness is derived from `seed` and the number of the round. On a CPU, a training that was stopped and resumed
    equals an uninterrupted one bit for bit.

    Args:
        images: Training images.
        spec: The backbone.
        random_weights: Random weights and normalisation, from `load_pretrained_weights(spec, "none", ...)`.
        settings: Scheme and its settings.
        seed: Seed of the head, the order and the zaps.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.

    Attributes:
        model: The model in training mode.
        done: Number of rounds that are done.
        loss: Loss of the last round, see `PretrainedSource.loss`; NaN before the first.

    Raises:
        UsageError: The scheme takes steps on single images and the backbone has batch normalisation, or the source has
            one class only.
    """

    def __init__(
        self,
        images: SourceImages,
        spec: BackboneSpec,
        random_weights: PretrainedWeights,
        settings: PretrainSettings,
        seed: int = 0,
        *,
        device: str | None = None,
    ) -> None:
        if len(images.class_names) < 2:
            raise UsageError(f"{images.name}: a source needs two or more classes, but has {len(images.class_names)}")
        self.images, self.settings, self.seed = images, settings, seed
        self.device = pick_device(device)
        size = int(images.pixels.shape[1])
        model = build_backbone(spec, len(images.class_names), image_size=size, seed=derive_seed(seed, "head"))
        model.load_pretrained(random_weights.w0)
        check_scheme(model, spec.text, settings.scheme)
        self.model: Backbone = model.to(self.device).train()
        self.optimizer = Adam(self.model.parameters(), lr=settings.lr, fused=True)
        self.labels = torch.from_numpy(images.labels)
        self.class_indices = [torch.nonzero(self.labels == label)[:, 0] for label in range(len(images.class_names))]
        self.mean = torch.tensor(random_weights.mean, device=self.device)
        self.std = torch.tensor(random_weights.std, device=self.device)
        self.done = 0
        self.loss = math.nan

    def run(
        self,
        *,
        checkpoint: Path | None = None,
        checkpoint_seconds: float = 30.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Trains all remaining rounds.

        Args:
            checkpoint: File to resume from, if it exists, and to write to; None writes no checkpoint.
            checkpoint_seconds: Minimum time between two writes.
            progress: Called as progress(rounds done, number of rounds) at the start, at most five times per second, and
                at the end.

        Raises:
            NbtError: The loss is not finite.
        """
        self._resume(checkpoint)
        total = self.settings.rounds
        written = reported_at = time.monotonic()
        if progress is not None:
            progress(self.done, total)
        while self.done < total:
            self.run_round()
            now = time.monotonic()
            if checkpoint is not None and self.done < total and now - written >= checkpoint_seconds:
                self.save(checkpoint)
                written = now
            if progress is not None and (self.done == total or now - reported_at >= _PROGRESS_INTERVAL_SECONDS):
                progress(self.done, total)
                reported_at = now

    def run_round(self) -> None:
        """Trains one epoch or episode.

        Raises:
            NbtError: The loss is not finite.
        """
        number = self.done + 1
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), flush_denormals():
            torch.manual_seed(derive_seed(self.seed, "round", number))
            self.loss = self._run_epoch(number) if self.settings.is_iid else self._run_episode(number)
        if not math.isfinite(self.loss):
            unit = "epoch" if self.settings.is_iid else "episode"
            raise NbtError(f"the pretraining diverged in {unit} {number} (loss {self.loss}); lower its learning rates")
        self.done = number

    def _run_epoch(self, epoch: int) -> float:
        """Trains on shuffled mini-batches, after a zap if one is due; returns the mean loss."""
        if self.settings.is_zap_due(epoch):
            rng = generator(self.seed, "zap", epoch)
            chosen = draw_zapped_classes(len(self.class_indices), self.settings.zap_fraction, rng)
            zap(self.model.head, chosen, self.settings.zap_scale, rng)
        order = torch.randperm(len(self.labels), generator=generator(self.seed, "order", epoch))
        total = torch.zeros((), device=self.device)
        for rows in order.tensor_split(math.ceil(len(order) / self.settings.batch_size)):
            loss = F.cross_entropy(self.model(self.load(rows)), self.truth(rows))
            self._step(loss)
            total += loss.detach() * len(rows)
        return float(total) / len(order)

    def _run_episode(self, number: int) -> float:
        """Trains on an episode of ASB or meta-ASB; returns the loss on all of its images before the step of Adam."""
        settings = self.settings
        rng = generator(self.seed, "episode", number)
        episode = draw_episode(self.class_indices, settings.inner_steps, settings.remembered, rng)
        if settings.is_zap_due(number):
            zap(self.model.head, [episode.label], settings.zap_scale, rng)
        images, labels = self.load(episode.batch), self.truth(episode.batch)
        steps = settings.inner_steps
        if settings.scheme == "meta-asb":
            loss = meta_loss(self.model, images, labels, steps=steps, lr=settings.inner_lr)
        else:
            sequential_steps(self.model, images[:steps], labels[:steps], settings.inner_lr)
            loss = F.cross_entropy(self.model(images), labels)
        self._step(loss)
        return float(loss.detach())

    def _step(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def load(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns normalised images for the first unit, (n, 3, H, W), from indices, int64 (n,), on the CPU."""
        pixels = torch.from_numpy(self.images.pixels[rows.numpy()]).to(self.device)
        return normalise(pixels.permute(0, 3, 1, 2).float(), self.mean, self.std).contiguous()

    def truth(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns the labels of images on the device, int64 (n,)."""
        return self.labels[rows].to(self.device)

    @torch.no_grad()
    def evaluate(self) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Evaluates the model on its training images, in evaluation mode.

        Returns:
            The accuracy, 0 ... 1; the mean features of each class, float32 (C, D); the class sizes, int64 (C,).
        """
        classes, model = len(self.class_indices), self.model.eval()
        sums = torch.zeros(classes, model.feature_dim, device=self.device)
        correct = 0
        batch_size = inference_batch_size(INFERENCE_BATCH_SIZE, self.images.pixels.shape[1])
        for rows in torch.arange(len(self.labels)).split(batch_size):
            features, truth = model.features(self.load(rows)), self.truth(rows)
            sums.index_add_(0, truth, features.float())
            correct += int((model.head(features).argmax(dim=1) == truth).sum())
        model.train()
        counts = torch.bincount(self.labels, minlength=classes)
        return correct / len(self.labels), sums.cpu() / counts[:, None], counts

    def identity(self) -> dict[str, Any]:
        """Returns the values that a checkpoint of this training must have."""
        return checkpoint_identity(images=self.images.digest, settings=self.settings.identity(), seed=self.seed)

    def save(self, path: Path) -> None:
        """Writes the state of the training to a checkpoint."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_checkpoint(path, {"identity": self.identity(), "done": self.done, "loss": self.loss, **state})

    def _resume(self, path: Path | None) -> None:
        saved = None if path is None else load_checkpoint(path, self.identity())
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.done, self.loss = saved["done"], saved["loss"]


def check_scheme(model: torch.nn.Module, backbone: str, scheme: str) -> None:
    """Checks that a scheme applies to a network.

    Raises:
        UsageError: The scheme takes steps on single images, and the network normalises over the batch.
    """
    if scheme == "iid":
        return
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            raise UsageError(
                f"{scheme} takes steps on single images, but {backbone} normalises over the batch ({name}); "
                "use --scheme iid, or the backbone conv3 or conv4"
            )
