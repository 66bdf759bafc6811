"""Fine-tuning of one trial, epoch by epoch, from settings to weights. It is independent of the search."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nbt.models.backbone import Backbone
from nbt.settings import TransferSettings, repair
from nbt.task.task import Task
from nbt.training.batches import TaskBatches
from nbt.training.evaluation import Evaluation, evaluate
from nbt.training.metrics import Predictions
from nbt.training.recipe.checks import check_recipe
from nbt.training.recipe.loss import TrainingLoss
from nbt.training.recipe.mixup import draw_mixup_shares
from nbt.training.recipe.optimizer import TrainStep, make_optimizer, optimizer_facts
from nbt.training.recipe.stall import split_off_head
from nbt.training.recipe.techniques import training_hooks
from nbt.training.results import EpochResult
from nbt.training.stage import StageContext
from nbt.training.trial_state import TrialCheckpoint, TrialState
from nbt.training.worker.context import WorkerContext
from nbt.transfer.layer_lr import parameter_groups
from nbt.transfer.linearize import FirstOrder
from nbt.transfer.technique import HookChain, TrainingRun
from nbt.transfer.transfer_depth import frozen_units, set_training


@dataclass(frozen=True, eq=False)
class FineTuneResult:
    """Result of a trial.

    Attributes:
        model: The model with the weights after the last epoch (their moving average with `ema`), in evaluation mode;
            the expansion if the trial is linearised. It belongs to the worker context: the next trial overwrites it.
        settings: The repaired settings of the trial.
        curve: Results of all epochs, including those before a resume.
        setup_seconds: Time from the call to the first step: weights, optimiser, checkpoint.
        predictions: Predictions of the validation images after the last epoch; None without validation images, or if
            the training diverged.
        optimizer: What the optimiser trained: `trainable_parameters`, their number; `learning_rates`, the lowest and
            highest peak rate of a group; `weight_decay`, the highest strength of the decay of a group.
    """

    model: Backbone | FirstOrder
    settings: TransferSettings
    curve: tuple[EpochResult, ...]
    setup_seconds: float
    predictions: Predictions | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)


def fine_tune(
    task: Task,
    settings: TransferSettings,
    seed: int = 0,
    *,
    context: WorkerContext | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    known_epochs: int | None = None,
    stage: StageContext | None = None,
) -> Generator[EpochResult, bool | None, FineTuneResult]:
    """Fine-tunes a backbone on a task and yields after every epoch.

    All randomness is derived from `seed`. On a CPU, two runs are equal bit for bit, even if one of them was killed and
    resumed from its checkpoint.

    Args:
        task: Images, split and pretrained weights.
        settings: The recipe; it is repaired first, see `nbt.settings.repair`.
        seed: Seed of new weights, order, augmentation, mixup and dropout, 0 or more.
        context: Worker context to share between trials; None creates one for this trial.
        checkpoint: File to resume from, if it exists, and to write to; None writes no checkpoint.
        checkpoint_seconds: Minimum time between two writes; there is no write after the last epoch.
        known_epochs: Number of epochs whose results the caller already has. On a resume, later epochs of the checkpoint
            are yielded again. If None, no epoch of the checkpoint is yielded.
        stage: The stage of a stream that this training is part of; None for a separate training.

    Yields:
        One `EpochResult` per epoch that the caller does not have. If the loss is not finite, the last one has
        `diverged` set and the trial ends. Sending True ends the trial after the current epoch.

    Returns:
        A `FineTuneResult`, the value of the generator (`result = yield from fine_tune(...)`, or `StopIteration.value`).

    Raises:
        UsageError: The recipe is invalid for this task, see `check_recipe`, or the network cannot be linearised. It is
            raised before training starts.

    Examples:
        >>> import nbt
        >>> task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
        >>> [epoch.epoch for epoch in nbt.fine_tune(task, nbt.TransferSettings(epochs=2))]
        [1, 2]
    """
    started = time.perf_counter()
    check_recipe(settings, len(task.split.train))
    settings, context, stage = repair(settings), context or WorkerContext(task), stage or StageContext()

    # Model: the starting weights of the settings or of the stage, and the expansion around them if it is linearised.
    if settings.linearized:
        context.check_linearizable()
    model, frozen = context.prepare_model(settings, seed)
    _, frozen_top = frozen_units(settings, len(model.units))
    batches = TaskBatches(task, settings, seed, context, model, frozen)
    if stage.start is not None:
        model.load_state_dict(stage.start)
    else:
        batches.fit_feature_norm()
    network = _linearise(model, stage) if settings.linearized else model

    # Optimiser and loss; the techniques take part by their hooks.
    groups = parameter_groups(model.units, model.head, settings)
    if settings.stall > 0.0:
        groups = split_off_head(groups, model.head)
    loss = TrainingLoss(settings, stage.outputs, context.labels[torch.from_numpy(task.split.train)])
    run = TrainingRun(settings, seed, model, frozen, make_optimizer(settings, groups), batches.per_epoch)
    hooks = training_hooks(run, groups, context.w0, stage)
    train_step = TrainStep(run, network, loss, hooks, [group.lr for group in groups], context.device)

    state = TrialState(run, hooks)
    saved = TrialCheckpoint(checkpoint, checkpoint_seconds, task, run, context.starting_weights)
    saved.resume(state)
    setup_seconds = time.perf_counter() - started
    predictions: Predictions | None = None

    stopped = yield from _restored_epochs(state, known_epochs)
    while not (stopped or state.finished):
        clock, epoch = _EpochClock(), len(state.curve) + 1
        with context.fork_global_rng():
            context.seed_global_rng(seed, "epoch", epoch)
            set_training(model, model.units, frozen, frozen_top)
            total = torch.zeros((), device=context.device)
            shares = draw_mixup_shares(settings.mixup, batches.per_epoch, seed, epoch)
            with hooks.epoch(epoch):
                for index, (inputs, truth) in enumerate(batches.training(epoch)):
                    step = (epoch - 1) * batches.per_epoch + index
                    total += train_step(step, inputs, truth, shares[index]) * len(truth)
        train_loss = float(total) / len(task.split.train)  # the only wait for the device in an epoch

        def classify(inputs: torch.Tensor) -> torch.Tensor:
            return loss.mask_logits(network(inputs, frozen))

        result, predictions = _evaluate_epoch(epoch, train_loss, clock, batches, classify, hooks)
        state.curve.append(result)
        saved.save_if_due(state)
        if (yield result):
            break

    hooks.after_training()
    model.eval()
    model.zero_grad(set_to_none=True)
    return FineTuneResult(network, settings, tuple(state.curve), setup_seconds, predictions, optimizer_facts(groups))


def _restored_epochs(state: TrialState, known_epochs: int | None) -> Generator[EpochResult, bool | None, bool]:
    """Yields the epochs of a checkpoint that the caller does not have; returns whether it ended the trial at one."""
    for index in range(len(state.curve) if known_epochs is None else known_epochs, len(state.curve)):
        if (yield state.curve[index]):
            del state.curve[index + 1 :]
            return True
    return False


class _EpochClock:
    """Measures the time of an epoch from its creation on."""

    def __init__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall-clock time in seconds."""
        return time.perf_counter() - self._started

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process in seconds."""
        return time.process_time() - self._cpu_started


def _linearise(model: Backbone, stage: StageContext) -> FirstOrder:
    """Returns the expansion of the network around its current weights, or around those of the stage."""
    network = FirstOrder(model)
    if stage.origin is not None:
        network.base.load_state_dict(stage.origin)
    return network


def _evaluate_epoch(
    epoch: int,
    train_loss: float,
    clock: _EpochClock,
    batches: TaskBatches,
    classify: Callable[[torch.Tensor], torch.Tensor],
    hooks: HookChain,
) -> tuple[EpochResult, Predictions | None]:
    """Returns the result of an epoch and the predictions of the validation images.

    The monitored images (`Task.watched`), which the training does not use, are not part of the time of the epoch.
    """
    task = batches.task

    def measure(index: npt.NDArray[np.int64]) -> Evaluation:
        batches.model.eval()
        return evaluate(classify, batches.evaluation(index), batches.context.device, index)

    def diverged() -> tuple[EpochResult, None]:
        return EpochResult(
            epoch, train_loss, None, 0.0, clock.seconds, diverged=True, cpu_seconds=clock.cpu_seconds
        ), None

    predictions = None
    if not math.isfinite(train_loss):
        return diverged()
    with hooks.evaluation():
        result = EpochResult(epoch, train_loss, None, None, 0.0)
        if len(task.split.val):
            val = measure(task.split.val)
            predictions = val.predictions
            result = dataclasses.replace(result, val_loss=val.loss, val_accuracy=val.accuracy, metrics=val.metrics)
        result = dataclasses.replace(result, seconds=clock.seconds, cpu_seconds=clock.cpu_seconds)
        if result.val_loss is not None and not math.isfinite(result.val_loss):
            return diverged()
        if task.watched is not None:
            watched = measure(task.watched)
            metrics = {**watched.metrics, "log_loss": watched.loss} if watched.metrics else {}
            result = dataclasses.replace(result, watched_accuracy=watched.accuracy, watched_metrics=metrics)
    return result, predictions
