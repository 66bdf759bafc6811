"""Transfer to a class stream: protocols *continual* and *standard* of the zapping paper, with a learning-rate sweep.

See Frati et al., arXiv 2310.07996, and `ClassStreamSettings`. The network is always in evaluation mode, because one
image has no batch statistics: in both protocols, BatchNorm keeps its pretrained statistics (InstanceNorm has none).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from nbt.devices import INFERENCE_BATCH_SIZE, flush_denormals, inference_batch_size, normalise, pick_device
from nbt.errors import UsageError
from nbt.models.backbone import Backbone, build_backbone
from nbt.progress import Progress
from nbt.seeds import derive_seed, generator
from nbt.settings.class_stream import ClassStreamSettings
from nbt.task.task import Task
from nbt.training.recipe.eager_optimizers import Adam
from nbt.transfer.zap import zap


@dataclass(frozen=True, eq=False)
class ClassDraw:
    """Classes and images of one run. The label of a class in the run is its position in the stream.

    Attributes:
        classes: Labels of the classes in the task, int64 (C,), in the order of the stream.
        train: Indices of the training images in the task, int64 (C, n).
        test: Indices of the test images in the task, int64 (C, m); disjoint from `train`.
        seed: Seed of the head and of the order of the mini-batches.
    """

    classes: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class ClassStreamResult:
    """Result of a protocol.

    Attributes:
        settings: Settings of the protocol.
        rate: The chosen learning rate.
        sweep: Test accuracies of the sweep's draws per learning rate; {} without a sweep.
        accuracies: Test accuracy per draw after the whole stream, 0 ... 1; 0 if the training diverged.
        train_accuracies: Accuracy per draw on all training images, after the whole stream.
        steps: Number of gradient steps of one run.
        seconds: Wall-clock time of all runs.
    """

    settings: ClassStreamSettings
    rate: float
    sweep: dict[float, tuple[float, ...]]
    accuracies: tuple[float, ...]
    train_accuracies: tuple[float, ...]
    steps: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """The mean of `accuracies`."""
        return sum(self.accuracies) / len(self.accuracies)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in plain types."""
        return {
            **self.settings.to_dict(),
            "rate": self.rate,
            "sweep": {f"{rate:g}": list(values) for rate, values in self.sweep.items()},
            "accuracy": self.accuracy,
            "accuracies": list(self.accuracies),
            "train_accuracies": list(self.train_accuracies),
            "steps": self.steps,
            "seconds": self.seconds,
        }


def run_class_stream(
    task: Task,
    settings: ClassStreamSettings,
    seed: int = 0,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> ClassStreamResult:
    """Chooses the learning rate on the draws of the sweep, then runs the protocol on other draws.

    Draws use all images of the task and ignore its split. The draws of the sweep and those of the result have different
    seeds. With the same seed, the results of different sources are paired by draw.

    Args:
        task: Images and pretrained weights.
        settings: Settings of the protocol.
        seed: Seed of the draws, 0 or more.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.
        progress: Called as progress(description, runs done, number of runs).

    Raises:
        UsageError: The task has too few classes, or a class too few images.
    """
    started = time.perf_counter()
    check_class_sizes(task, settings)
    trainer = ClassStreamTrainer(task, settings, device=device)
    sweep_draws = settings.sweep_draws if len(settings.rates) > 1 else 0
    total = sweep_draws * len(settings.rates) + settings.draws
    done = 0

    def report_run(description: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(description, done, total)

    sweep: dict[float, list[float]] = {rate: [] for rate in settings.rates}
    for number in range(sweep_draws):
        trainer.load_draw(make_draw(task.labels, settings, seed, "sweep", number))
        for rate in settings.rates:
            sweep[rate].append(trainer.run(rate)[0])
            report_run("choosing the learning rate")
    rate = best_learning_rate(sweep) if sweep_draws else settings.rates[0]
    accuracies = []
    for number in range(settings.draws):
        trainer.load_draw(make_draw(task.labels, settings, seed, "draw", number))
        accuracies.append(trainer.run(rate))
        report_run(f"{settings.protocol} transfer")
    return ClassStreamResult(
        settings=settings,
        rate=rate,
        sweep={rate: tuple(values) for rate, values in sweep.items()} if sweep_draws else {},
        accuracies=tuple(test for test, _ in accuracies),
        train_accuracies=tuple(train for _, train in accuracies),
        steps=settings.steps(),
        seconds=time.perf_counter() - started,
    )


def best_learning_rate(sweep: dict[float, list[float]]) -> float:
    """Returns the learning rate with the highest mean accuracy, and the lowest one of several."""
    return max(sorted(sweep), key=lambda rate: sum(sweep[rate]) / len(sweep[rate]))


def limit_classes(settings: ClassStreamSettings, task: Task) -> ClassStreamSettings:
    """Returns the settings with at most as many classes per draw as the task has after `skip_classes`."""
    available = max(2, task.n_classes - settings.skip_classes)
    return dataclasses.replace(settings, classes=min(settings.classes, available))


def check_class_sizes(task: Task, settings: ClassStreamSettings) -> None:
    """Checks that the task has enough classes and images for the draws.

    Raises:
        UsageError: The task has too few classes, or a class too few images.
    """
    available = task.n_classes - settings.skip_classes
    if available < settings.classes:
        skipped = f" after the first {settings.skip_classes}" if settings.skip_classes else ""
        raise UsageError(f"classes {settings.classes}: the dataset has {max(available, 0)}{skipped}; give --classes N")
    counts = np.bincount(task.labels, minlength=task.n_classes)[settings.skip_classes :]
    needed = settings.train + settings.test
    if counts.min() < needed:
        name = task.class_names[settings.skip_classes + int(counts.argmin())]
        raise UsageError(
            f"class {name!r} has {counts.min()} images, but {settings.train} training images and {settings.test} test "
            "images per class are required; give --train N and --test N with a lower sum"
        )


def make_draw(labels: npt.NDArray[np.int64], settings: ClassStreamSettings, seed: int, *names: int | str) -> ClassDraw:
    """Draws classes, their order, and training and test images of each class.

    Args:
        labels: Labels of the task, int64 (N,).
        settings: Settings with the numbers of classes and images.
        seed: Seed, 0 or more.
        names: Name of the draw, such as "sweep", 0.
    """
    draw_seed = derive_seed(seed, "stream", *names)
    rng = np.random.default_rng(draw_seed)
    pool = np.arange(settings.skip_classes, int(labels.max()) + 1)
    classes = rng.choice(pool, size=settings.classes, replace=False)
    n_images = settings.train + settings.test
    images = np.stack([rng.choice(np.flatnonzero(labels == c), size=n_images, replace=False) for c in classes])
    return ClassDraw(classes, images[:, : settings.train], images[:, settings.train :], draw_seed)


def class_stream_batches(settings: ClassStreamSettings, seed: int) -> list[torch.Tensor]:
    """Returns the images of each step of a run, as positions among the draw's training images in the order of classes.

    Args:
        settings: Settings of the protocol.
        seed: Seed of the order of "standard"; "continual" uses the order of the draw.
    """
    images = settings.classes * settings.train
    if settings.protocol == "continual":
        return list(torch.arange(images).split(1))
    n = math.ceil(images / settings.batch_size)
    orders = [torch.randperm(images, generator=generator(seed, "order", epoch)) for epoch in range(settings.epochs)]
    return [rows for order in orders for rows in order.tensor_split(n)]


class ClassStreamTrainer:
    """Trains the network once per call of `run`, each time from the pretrained weights.

    Args:
        task: Images and pretrained weights.
        settings: Settings of the protocol.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.
    """

    def __init__(self, task: Task, settings: ClassStreamSettings, *, device: str | None = None) -> None:
        self.task, self.settings, self.device = task, settings, pick_device(device)
        model = build_backbone(task.backbone, settings.classes, image_size=task.image_size)
        self.model: Backbone = model.to(self.device).eval()
        self.head_only = settings.train_layers == "head"
        self.model.units.requires_grad_(not self.head_only)
        self.w0 = task.build_model(device=self.device).unit_state_dict()
        self.model.load_pretrained(self.w0)
        self.mean = torch.tensor(task.mean, device=self.device)
        self.std = torch.tensor(task.std, device=self.device)
        self.batch_size = inference_batch_size(INFERENCE_BATCH_SIZE, task.image_size)

    def load_draw(self, draw: ClassDraw) -> None:
        """Loads the images of a draw, or their features if only the head trains."""
        if self.head_only:
            self.model.load_pretrained(self.w0)
        self.draw = draw
        self.train, self.test = self._load(draw.train), self._load(draw.test)
        labels = torch.arange(self.settings.classes, device=self.device)
        self.train_labels = labels.repeat_interleave(self.settings.train)
        self.test_labels = labels.repeat_interleave(self.settings.test)
        self.batches = [rows.to(self.device) for rows in class_stream_batches(self.settings, draw.seed)]

    @torch.no_grad()
    def _load(self, index: npt.NDArray[np.int64]) -> torch.Tensor:
        parts = []
        for rows in torch.from_numpy(index.reshape(-1)).split(self.batch_size):
            pixels = torch.from_numpy(self.task.images.array[rows.numpy()]).to(self.device)
            images = normalise(pixels.permute(0, 3, 1, 2).float(), self.mean, self.std).contiguous()
            parts.append(self.model.features(images) if self.head_only else images)
        return torch.cat(parts)

    def run(self, rate: float) -> tuple[float, float]:
        """Trains on the loaded draw; returns the accuracies on its test and its training images, 0 ... 1.

        Args:
            rate: Learning rate of Adam.
        """
        if not self.head_only:
            self.model.load_pretrained(self.w0)
        zap(self.model.head, generator=generator(self.draw.seed, "head"), reset_bias=True)
        network: nn.Module = self.model.head if self.head_only else self.model
        parameters: Sequence[nn.Parameter] = list(network.parameters())
        optimizer = Adam(parameters, lr=rate, fused=True)
        with flush_denormals():
            for rows in self.batches:
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(network(self.train[rows]), self.train_labels[rows]).backward()
                optimizer.step()
            test_accuracy = self._accuracy(network, self.test, self.test_labels)
            return test_accuracy, self._accuracy(network, self.train, self.train_labels)

    @torch.no_grad()
    def _accuracy(self, network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Returns the accuracy, 0 ... 1; 0 if any logit is not finite."""
        correct = 0
        for chunk, truth in zip(inputs.split(self.batch_size), labels.split(self.batch_size), strict=True):
            logits = network(chunk)
            if not bool(torch.isfinite(logits).all()):
                return 0.0
            correct += int((logits.argmax(dim=1) == truth).sum())
        return correct / len(labels)
