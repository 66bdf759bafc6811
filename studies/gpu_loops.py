"""Part of `bench_gpu.py`: training loops that nbt is compared with, on the same files, weights and device.

`plain_loop` is what a practitioner writes: a DataLoader of PIL images, autocast and channels_last. `torchvision_loop`
follows the training script of torchvision's references (references/classification/train.py, with --amp and a cosine
schedule), `timm_loop` that of timm (train.py with --amp --channels-last: uint8 batches that are normalised on the
device and copied ahead of the step, label smoothing, a schedule per step). Both are written anew here. A loop yields
the seconds of each epoch, training and validation; the value of the generator is the validation accuracy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2 as t

LEARNING_RATE, MOMENTUM = 0.01, 0.9
Epochs = Generator[float, None, float]
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class LoopTask:
    """What a loop trains on.

    Attributes:
        train: Files and labels of the training images.
        val: Files and labels of the validation images.
        size: Height and width in pixels.
        mean: Mean of each channel, 0 ... 1.
        std: Standard deviation of each channel.
        model: Returns a new model with the starting weights.
        device: The device.
        epochs: Number of epochs.
        batch: Images per step.
        workers: Loader processes.
    """

    train: tuple[list[Path], list[int]]
    val: tuple[list[Path], list[int]]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model: Callable[[], nn.Module]
    device: torch.device
    epochs: int
    batch: int
    workers: int

    def steps(self) -> int:
        """Returns the number of steps of an epoch."""
        return math.ceil(len(self.train[0]) / self.batch)


class Files(Dataset[tuple[Any, int]]):
    """Image files that every access decodes."""

    def __init__(self, items: tuple[list[Path], list[int]], transform: Callable[[Image.Image], Any]) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items[0])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self.items[0][index]) as image:
            return self.transform(image.convert("RGB")), self.items[1][index]


def plain_loop(task: LoopTask) -> Epochs:
    """Yields the seconds of the epochs of a plain loop with bf16 autocast and channels_last."""
    model = task.model().to(memory_format=torch.channels_last)
    loader, val = float_loader(task, train=True), float_loader(task, train=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=task.epochs * task.steps())
    accuracy = 0.0
    for _ in range(task.epochs):
        started = time.perf_counter()
        model.train()
        for inputs, truth in to_device(loader, task.device):
            with torch.autocast(task.device.type, dtype=torch.bfloat16, enabled=task.device.type == "cuda"):
                loss = F.cross_entropy(model(inputs), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = evaluate(model, to_device(val, task.device))
        yield time.perf_counter() - started
    return accuracy


def torchvision_loop(task: LoopTask) -> Epochs:
    """Yields the seconds of the epochs of torchvision's recipe, which reads loss and accuracy after every step."""
    model = task.model().to(memory_format=torch.contiguous_format)
    loader, val = float_loader(task, train=True), float_loader(task, train=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=task.epochs)
    scaler = torch.amp.GradScaler(task.device.type, enabled=task.device.type == "cuda")
    accuracy, seen, correct, losses = 0.0, 0, 0.0, 0.0
    for _ in range(task.epochs):
        started = time.perf_counter()
        model.train()
        for inputs, truth in to_device(loader, task.device, torch.contiguous_format):
            with torch.autocast(task.device.type, dtype=torch.float16, enabled=task.device.type == "cuda"):
                output = model(inputs)
                loss = F.cross_entropy(output, truth)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses += loss.item()
            correct += (output.argmax(1) == truth).sum().item()
            seen += len(truth)
        schedule.step()
        accuracy = evaluate(model, to_device(val, task.device, torch.contiguous_format))
        yield time.perf_counter() - started
    return accuracy


def timm_loop(task: LoopTask) -> Epochs:
    """Yields the seconds of the epochs of timm's recipe."""
    model = task.model().to(memory_format=torch.channels_last)
    loader, val = uint8_loader(task, train=True), uint8_loader(task, train=False)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 2e-5}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    scaler = torch.amp.GradScaler(task.device.type, enabled=task.device.type == "cuda")
    accuracy, step, total = 0.0, 0, task.epochs * task.steps()
    for _ in range(task.epochs):
        started = time.perf_counter()
        model.train()
        for inputs, truth in prefetched(loader, task):
            rate = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / total))
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(task.device.type, dtype=torch.float16, enabled=task.device.type == "cuda"):
                loss = F.cross_entropy(model(inputs), truth, label_smoothing=0.1)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            step += 1
        accuracy = evaluate(model, prefetched(val, task))
        yield time.perf_counter() - started
    return accuracy


LOOPS = {"plain loop": plain_loop, "torchvision's recipe": torchvision_loop, "timm's recipe": timm_loop}


def float_loader(task: LoopTask, *, train: bool) -> DataLoader[Any]:
    """Returns a loader of normalised float images."""
    crop = [t.RandomResizedCrop(task.size, scale=(0.5, 1.0)), t.RandomHorizontalFlip()]
    steps = [*(crop if train else [t.Resize((task.size, task.size))]), t.PILToTensor()]
    steps += [t.ToDtype(torch.float, scale=True), t.Normalize(task.mean, task.std)]
    return loader_of(task, Files(task.train if train else task.val, t.Compose(steps)), train=train)


def uint8_loader(task: LoopTask, *, train: bool) -> DataLoader[Any]:
    """Returns a loader of uint8 images, which are normalised on the device."""
    crop = [t.RandomResizedCrop(task.size, scale=(0.5, 1.0)), t.RandomHorizontalFlip()]
    resized = t.Compose(crop if train else [t.Resize((task.size, task.size))])

    def transform(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(resized(image), dtype=np.uint8)).permute(2, 0, 1)

    # Locals cannot be sent to spawned processes, but Linux forks the loader's.
    return loader_of(task, Files(task.train if train else task.val, transform), train=train)


def loader_of(task: LoopTask, images: Files, *, train: bool) -> DataLoader[Any]:
    """Returns a loader with the options of the references: pinned memory, and processes that stay."""
    options: dict[str, Any] = {"num_workers": task.workers, "persistent_workers": task.workers > 0}
    return DataLoader(images, task.batch, shuffle=train, pin_memory=task.device.type == "cuda", **options)


def to_device(
    loader: Iterable[Any], device: torch.device, layout: torch.memory_format = torch.channels_last
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the batches of a loader on the device."""
    for inputs, truth in loader:
        yield (
            inputs.to(device, non_blocking=True, memory_format=layout),
            torch.as_tensor(truth).to(device, non_blocking=True),
        )


def prefetched(loader: Iterable[Any], task: LoopTask) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields normalised batches; on a GPU, the next one is copied while the step of the last one runs."""
    mean, std = (255 * torch.tensor(value, device=task.device).view(1, 3, 1, 1) for value in (task.mean, task.std))
    stream = torch.cuda.Stream() if task.device.type == "cuda" else None
    held: tuple[torch.Tensor, torch.Tensor] | None = None
    for inputs, truth in loader:
        with torch.cuda.stream(stream):
            batch = inputs.to(task.device, non_blocking=True, memory_format=torch.channels_last).float()
            copied = (batch.sub_(mean).div_(std), torch.as_tensor(truth).to(task.device, non_blocking=True))
        if held is not None:
            yield held
        if stream is not None:
            torch.cuda.current_stream().wait_stream(stream)
            for tensor in copied:
                tensor.record_stream(torch.cuda.current_stream())
        held = copied
    if held is not None:
        yield held


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Batches) -> float:
    """Returns the accuracy of a model."""
    model.eval()
    correct = seen = 0
    for inputs, truth in batches:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=inputs.device.type == "cuda"):
            correct += int((model(inputs).argmax(1) == truth).sum())
        seen += len(truth)
    return correct / max(1, seen)
