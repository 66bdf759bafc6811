"""What a training keeps between epochs: its curve, its weights, and its checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from nbt.task.task import Task
from nbt.training.checkpoint import checkpoint_identity, load_checkpoint, save_checkpoint
from nbt.training.results import EpochResult
from nbt.training.worker.starting_weights import StartingWeights
from nbt.transfer.technique import HookChain, TrainingRun
from nbt.transfer.transfer_depth import copy_tensors


class TrialState:
    """Curve and weights of a training.

    Args:
        run: The training.
        hooks: Hooks of the techniques, whose state is part of a checkpoint.

    Attributes:
        curve: Results of all epochs so far.
    """

    def __init__(self, run: TrainingRun, hooks: HookChain) -> None:
        self._run, self._hooks = run, hooks
        self.curve: list[EpochResult] = []
        # Frozen units do not change, so only the rest, buffers included, is saved.
        prefix = tuple(f"units.{index}." for index in range(run.frozen))
        self._weights = {n: t for n, t in run.model.state_dict().items() if not n.startswith(prefix)}

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over, or the training diverged."""
        return len(self.curve) >= self._run.settings.epochs or (bool(self.curve) and self.curve[-1].diverged)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the training, tensors and plain values."""
        return {
            "curve": [result.to_dict() for result in self.curve],
            "state": dict(self._weights),
            "optimizer": self._run.optimizer.state_dict(),
            "techniques": self._hooks.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        copy_tensors(list(self._weights.values()), [saved["state"][name] for name in self._weights])
        self._run.optimizer.load_state_dict(saved["optimizer"])
        self._hooks.load_state_dict(saved["techniques"] if "techniques" in saved else _techniques_of_0_1(saved))
        self.curve = [EpochResult.from_dict(result) for result in saved["curve"]]


def _techniques_of_0_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the states of the techniques in a checkpoint of version 0.1."""
    states = {"decay": {"anchors": saved["anchors"]}, "EMA": saved["average"]}
    return {name: state for name, state in states.items() if state is not None}


class TrialCheckpoint:
    """The checkpoint file of a training, written at intervals.

    Args:
        path: The file; None writes and reads nothing.
        seconds: Minimum time between two writes.
        task: The task.
        run: The training.
        weights: Its starting weights.
    """

    def __init__(
        self, path: Path | None, seconds: float, task: Task, run: TrainingRun, weights: StartingWeights
    ) -> None:
        self._path, self._seconds = path, seconds
        self._identity = {} if path is None else _trial_identity(task, run, weights)
        self._written = time.monotonic()

    def resume(self, state: TrialState) -> None:
        """Restores the state from the file, if there is one of this training."""
        saved = None if self._path is None else load_checkpoint(self._path, self._identity)
        if saved is not None:
            state.load_state_dict(saved)
        self._written = time.monotonic()

    def save_if_due(self, state: TrialState) -> None:
        """Writes the state if the last write was long enough ago, but not after the last epoch."""
        if self._path is None or state.finished or time.monotonic() - self._written < self._seconds:
            return
        save_checkpoint(self._path, {"identity": self._identity, **state.state_dict()})
        self._written = time.monotonic()


def _trial_identity(task: Task, run: TrainingRun, weights: StartingWeights) -> dict[str, Any]:
    """Returns the values that a checkpoint of a training must have."""
    estimates_statistics = run.settings.linearized and run.settings.transfer_depth < 1.0
    return checkpoint_identity(
        task=task.fingerprint,
        content_hash=task.content_hash,
        backbone=task.backbone.text,
        weights_hash=weights.hash,
        settings=run.settings.identity(),
        seed=run.seed,
        split=[task.seed, len(task.split.train), len(task.split.val), *([task.fold] if task.fold else [])],
        # In version 0.1 the new units of a linearised network had the initial statistics.
        **({"new_statistics": "estimated"} if estimates_statistics else {}),
    )
