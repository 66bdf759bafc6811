"""Fine-tuning of one trial, epoch by epoch, from settings to weights. It is independent of the search."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nbt.devices import autocast, inference_batch_size
from nbt.models.backbone import Backbone
from nbt.seeds import derive_seed, generator
from nbt.settings import TransferSettings, repair
from nbt.task.task import Task
from nbt.training.checkpoint import checkpoint_identity, load_checkpoint, save_checkpoint
from nbt.training.evaluation import EVALUATION_BATCH_SIZE, evaluate
from nbt.training.recipe.augmentation import AugmentationPlan, draw_augmentation_plan
from nbt.training.recipe.checks import check_recipe, count_batches, stall_steps
from nbt.training.recipe.ema import WeightEMA
from nbt.training.recipe.loss import TrainingLoss
from nbt.training.recipe.lr_schedule import lr_factor
from nbt.training.recipe.stall import head_parameter_groups, split_off_head
from nbt.training.recipe.zap_schedule import zap_head
from nbt.training.results import EpochResult, best_epoch
from nbt.training.stage import StageContext
from nbt.training.worker.context import WorkerContext
from nbt.transfer.fast import FeatureNorm, stalled
from nbt.transfer.l2sp import L2SP
from nbt.transfer.layer_lr import parameter_groups
from nbt.transfer.linearize import FirstOrder
from nbt.transfer.transfer_depth import copy_tensors, set_training


@dataclass(frozen=True, eq=False)
class FineTuneResult:
    """Result of a trial.

    Attributes:
        model: The model with the kept weights, in evaluation mode; the expansion if the trial is linearised. It belongs
            to the worker context: the next trial overwrites it.
        settings: The repaired settings of the trial.
        curve: Results of all epochs, including those before a resume.
        best: The epoch whose weights were kept: the best on the validation images, or the last without any.
        setup_seconds: Time from the call to the first step: weights, optimiser, checkpoint.
    """

    model: Backbone | FirstOrder
    settings: TransferSettings
    curve: tuple[EpochResult, ...]
    best: EpochResult | None
    setup_seconds: float


def fine_tune(
    task: Task,
    settings: TransferSettings,
    seed: int = 0,
    *,
    context: WorkerContext | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
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
        stage: The stage of a stream that this training is part of; None for a separate training.

    Yields:
        One `EpochResult` per new epoch. If the loss is not finite, the last one has `diverged` set and the trial ends.
        Sending True ends the trial after the current epoch.

    Returns:
        A `FineTuneResult`, the value of the generator (`result = yield from fine_tune(...)`, or `StopIteration.value`).

    Raises:
        UsageError: The recipe is invalid for this task, see `check_recipe`, or the network cannot be linearised. It is
            raised before training starts.
    """
    started = time.perf_counter()
    check_recipe(settings, len(task.split.train))
    trial = _Trial(task, repair(settings), seed, context or WorkerContext(task), stage or StageContext())
    if checkpoint is not None:
        trial.resume(checkpoint)
    setup_seconds = time.perf_counter() - started
    written = time.monotonic()
    while not trial.finished:
        result = trial.run_epoch()
        if checkpoint is not None and not trial.finished and time.monotonic() - written >= checkpoint_seconds:
            trial.save(checkpoint)
            written = time.monotonic()
        if (yield result):
            break
    return trial.finish(setup_seconds)


class _Trial:
    """State of one trial. `inputs` are always the inputs of the first unit that trains."""

    def __init__(
        self, task: Task, settings: TransferSettings, seed: int, context: WorkerContext, stage: StageContext
    ) -> None:
        self.task, self.settings, self.seed, self.context, self.stage = task, settings, seed, context, stage
        if settings.linearized:
            context.check_linearizable()
        self.model, self.frozen = context.prepare_model(settings, seed)
        if stage.start is not None:
            self.model.load_state_dict(stage.start)
        self.curve: list[EpochResult] = []
        groups = parameter_groups(self.model.units, self.model.head, settings)
        if settings.stall > 0.0:
            groups = split_off_head(groups, self.model.head)
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        by_name = dict(self.model.named_parameters())
        self.l2sp = L2SP(groups, {by_name[name]: tensor for name, tensor in context.w0.items() if name in by_name})
        self.head_l2sp = L2SP(head_parameter_groups(groups, self.model.head), {})
        self.peak_lrs = [group.lr for group in groups]
        self.optimizer = _make_optimizer(settings, groups)
        self.ema = WeightEMA(self.parameters, settings.ema) if settings.ema else None
        # Frozen units do not change, so only the rest, buffers included, is kept and saved.
        prefix = tuple(f"units.{index}." for index in range(self.frozen))
        self.state = {n: t for n, t in self.model.state_dict().items() if not n.startswith(prefix)}
        self.kept = [tensor.clone() for tensor in self.state.values()]
        self.use_feature_cache = context.cache_frozen_features and self.frozen > 0
        n_train = len(task.split.train)
        self.steps_per_epoch = count_batches(n_train, settings.batch_size)
        self.stall_steps = stall_steps(settings, n_train)
        self._fit_feature_norm()
        self.loss_fn = TrainingLoss(settings, stage.outputs)
        self.network = self._linearise() if settings.linearized else self.model
        if stage.penalty is not None:
            stage.penalty.bind({name: parameter for name, parameter in by_name.items() if parameter.requires_grad})

    def _linearise(self) -> FirstOrder:
        """Returns the expansion of the network around its current weights, or around those of the stage."""
        network = FirstOrder(self.model)
        if self.stage.origin is not None:
            network.base.load_state_dict(self.stage.origin)
        return network

    @property
    def finished(self) -> bool:
        return len(self.curve) >= self.settings.epochs or (bool(self.curve) and self.curve[-1].diverged)

    def run_epoch(self) -> EpochResult:
        """Trains one epoch and evaluates on the validation images."""
        started = time.perf_counter()
        epoch = len(self.curve) + 1
        with self.context.fork_global_rng():
            self.context.seed_global_rng(self.seed, "epoch", epoch)
            zap_head(self.model.head, self.settings, self.seed, epoch, self.stage.zap_classes)
            train_loss = self._train(epoch)
        val_loss, val_accuracy = self._validate() if math.isfinite(train_loss) else (None, None)
        seconds = time.perf_counter() - started
        watched_accuracy = self._evaluate_monitored() if math.isfinite(train_loss) else None
        if not math.isfinite(train_loss) or (val_loss is not None and not math.isfinite(val_loss)):
            result = EpochResult(epoch, train_loss, None, 0.0, seconds, diverged=True)
        else:
            result = EpochResult(epoch, train_loss, val_loss, val_accuracy, seconds, watched_accuracy=watched_accuracy)
        self.curve.append(result)
        return result

    @torch.no_grad()
    def _fit_feature_norm(self) -> None:
        """Fits a normalisation with target statistics to the training images, at the current weights."""
        norm = self.model.feature_norm
        if isinstance(norm, FeatureNorm) and norm.mode == "target" and self.stage.start is None:
            self.model.eval()
            norm.fit(self._evaluation_features(np.sort(self.task.split.train)))

    def _evaluation_features(self, index: npt.NDArray[np.int64]) -> Iterator[torch.Tensor]:
        for inputs, _ in self._evaluation_batches(index):
            with autocast(self.context.device):
                features = self._features(inputs)
            yield features

    def _train(self, epoch: int) -> float:
        """Runs the steps of one epoch and returns the mean loss. The only device synchronisation is at the end."""
        settings, model = self.settings, self.model
        set_training(model, model.units, self.frozen)
        total = torch.zeros((), device=self.context.device)
        order = torch.from_numpy(self.task.split.train)
        order = order[torch.randperm(len(order), generator=generator(self.seed, "order", epoch))]
        mixup_lambdas = _draw_mixup_lambdas(
            settings.mixup, self.steps_per_epoch, derive_seed(self.seed, "mixup", epoch)
        )
        step = (epoch - 1) * self.steps_per_epoch
        with ExitStack() as stall:
            if step < self.stall_steps:
                stall.enter_context(stalled(*model.units[self.frozen :]))
            for batch, (inputs, truth) in enumerate(self._training_batches(epoch, order)):
                if step + batch == self.stall_steps:
                    stall.close()
                total += self._step(inputs, truth, mixup_lambdas[batch], step + batch) * len(truth)
        return float(total) / len(order)

    def _step(self, inputs: torch.Tensor, truth: torch.Tensor, mixup_lambda: float, step: int) -> torch.Tensor:
        """Takes optimiser step number `step` of the trial (from 0) and returns the loss, a tensor on the device.

        During the stall the backbone has no gradients, so the optimiser skips its weights and moments; they are not
        decayed either.
        """
        if mixup_lambda < 1.0:
            inputs = torch.lerp(inputs.flip(0), inputs, mixup_lambda)
        with autocast(self.context.device):
            logits = self.network(inputs, self.frozen).float()
        loss = self.loss_fn(logits, truth)
        if mixup_lambda < 1.0:
            loss = torch.lerp(self.loss_fn(logits, truth.flip(0)), loss, mixup_lambda)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        factor = lr_factor(step, self.settings.epochs * self.steps_per_epoch, self.settings.warmup)
        l2sp = self.l2sp
        if step < self.stall_steps:
            factor, l2sp = factor * self.settings.head_lr_multiplier, self.head_l2sp
        for group, peak in zip(self.optimizer.param_groups, self.peak_lrs, strict=True):
            group["lr"] = peak * factor
        if self.settings.optimizer == "adamw":
            l2sp.decay(factor)
        else:
            l2sp.add_to_gradients()
        if self.stage.penalty is not None:
            self.stage.penalty.add_to_gradients()
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        return loss.detach()

    def _classify(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the logits of predictions: runs the units that train and the head."""
        return self.loss_fn.mask_logits(self.network(inputs, self.frozen))

    def _features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns features: runs the units that train; without any, the inputs already are features."""
        if self.frozen == len(self.model.units):
            return inputs
        return self.model.neck(self.model.forward_units(inputs, self.frozen))  # type: ignore[no-any-return]

    def _training_batches(self, epoch: int, order: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields batches whose sizes differ by at most one: a small last batch would distort BatchNorm statistics."""
        policy = self.settings.augmentation
        batches = order.tensor_split(self.steps_per_epoch)
        if self.use_feature_cache:
            view = (epoch - 1) % self.settings.views if policy != "none" else 0
            features = self.context.frozen_feature_batches(self.model, self.frozen, policy, view, batches)
            yield from zip(features, map(self._labels_of, batches), strict=True)
            return
        plan = draw_augmentation_plan(
            policy, len(order), generator(self.seed, "augment", epoch), mirror=self.task.mirror
        )
        plan = plan.to(self.context.device)
        rows = torch.arange(len(order), device=self.context.device).tensor_split(self.steps_per_epoch)
        for row, chunk in zip(rows, batches, strict=True):
            yield self._forward_frozen(self.context.load_images(chunk, plan.rows(row))), self._labels_of(chunk)

    def _forward_frozen(self, images: torch.Tensor) -> torch.Tensor:
        return self.context.forward_frozen(self.model, self.frozen, images) if self.frozen else images

    def _labels_of(self, index: torch.Tensor) -> torch.Tensor:
        return self.context.labels[index.to(self.context.device)]

    def _validate(self) -> tuple[float | None, float | None]:
        """Returns loss and accuracy on the validation images, and keeps the weights if they are the best so far."""
        with self._using_ema_weights():
            index = self.task.split.val
            loss, accuracy = (None, None) if len(index) == 0 else self._evaluate(index)
            candidate = EpochResult(len(self.curve) + 1, 0.0, loss, accuracy, 0.0)
            if loss is None or (math.isfinite(loss) and best_epoch([*self.curve, candidate]) is candidate):
                copy_tensors(self.kept, list(self.state.values()))
        return loss, accuracy

    def _evaluate_monitored(self) -> float | None:
        """Returns the accuracy on the monitored images (`Task.watched`), which the training does not use."""
        if self.task.watched is None:
            return None
        with self._using_ema_weights():
            return self._evaluate(self.task.watched)[1]

    @contextmanager
    def _using_ema_weights(self) -> Iterator[None]:
        """Replaces the weights by their moving average, if there is one, within the context."""
        if self.ema is None:
            yield
            return
        self.ema.swap()
        try:
            yield
        finally:
            self.ema.swap()

    def _evaluate(self, index: npt.NDArray[np.int64]) -> tuple[float, float]:
        self.model.eval()
        return evaluate(self._classify, self._evaluation_batches(index), self.context.device)

    def _evaluation_batches(self, index: npt.NDArray[np.int64]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields batches of images without augmentation."""
        chunks = torch.from_numpy(index).split(inference_batch_size(EVALUATION_BATCH_SIZE, self.task.image_size))
        if self.use_feature_cache:
            features = self.context.frozen_feature_batches(self.model, self.frozen, "none", 0, chunks)
            yield from zip(features, map(self._labels_of, chunks), strict=True)
            return
        for chunk in chunks:
            yield self._forward_frozen(self.context.load_images(chunk, AugmentationPlan())), self._labels_of(chunk)

    def finish(self, setup_seconds: float) -> FineTuneResult:
        """Loads the kept weights into the model."""
        with torch.no_grad():
            copy_tensors(list(self.state.values()), self.kept)
        self.model.eval()
        self.model.zero_grad(set_to_none=True)
        return FineTuneResult(self.network, self.settings, tuple(self.curve), best_epoch(self.curve), setup_seconds)

    def identity(self) -> dict[str, Any]:
        """Returns the values that a checkpoint of this trial must have."""
        split = [len(part) for part in (self.task.split.train, self.task.split.val)]
        return checkpoint_identity(
            task=self.task.fingerprint,
            backbone=self.task.backbone.text,
            weights_hash=self.context.starting_weights.hash,
            settings=self.settings.identity(),
            seed=self.seed,
            split=[self.task.seed, *split],
        )

    def save(self, path: Path) -> None:
        """Writes the state of the trial, including the pretrained weights that L2-SP decays to."""
        ema = self.ema
        save_checkpoint(
            path,
            {
                "identity": self.identity(),
                "curve": [result.to_dict() for result in self.curve],
                "state": dict(self.state),
                "kept": self.kept,
                "optimizer": self.optimizer.state_dict(),
                "anchors": self.l2sp.anchors,
                "average": None if ema is None else {"values": ema.values, "steps": ema.steps},
            },
        )

    @torch.no_grad()
    def resume(self, path: Path) -> None:
        """Restores the state from a checkpoint of this trial, if there is one."""
        saved = load_checkpoint(path, self.identity())
        if saved is None:
            return
        copy_tensors(list(self.state.values()), [saved["state"][name] for name in self.state])
        copy_tensors(self.kept, saved["kept"])
        self.optimizer.load_state_dict(saved["optimizer"])
        # Checkpoints of version 0.1 have no hash of the weights, so the file may have changed since.
        self.l2sp.anchors = [[value.to(self.context.device) for value in group] for group in saved["anchors"]]
        if self.ema is not None:
            copy_tensors(self.ema.values, saved["average"]["values"])
            self.ema.steps = saved["average"]["steps"]
        self.curve = [EpochResult.from_dict(result) for result in saved["curve"]]


def _make_optimizer(settings: TransferSettings, groups: list[Any]) -> torch.optim.Optimizer:
    """Builds the fused optimiser without weight decay; `L2SP` applies all decay."""
    param_groups = [{"params": group.parameters, "lr": group.lr} for group in groups]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(param_groups, betas=(settings.momentum, 0.999), weight_decay=0.0, fused=True)
    return torch.optim.SGD(
        param_groups, lr=settings.body_lr, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True
    )


def _draw_mixup_lambdas(alpha: float, n: int, seed: int) -> list[float]:
    """Returns mixup's lambda for each of n batches; 1 means no mixing."""
    if alpha == 0.0:
        return [1.0] * n
    return [float(value) for value in np.random.default_rng(seed).beta(alpha, alpha, size=n)]
