"""What a trial is asked and what it answers: plain data that crosses process borders."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbt.settings import TransferSettings


@dataclass(frozen=True)
class EpochResult:
    """One epoch of one trial.

    Attributes:
        epoch: 1 ... `settings.epochs`.
        train_loss: Mean training loss of the epoch (with smoothing and mixup, without decay), in nats.
        val_loss: Mean cross-entropy on the validation images, in nats; None without validation images.
        val_accuracy: Share of validation images classified rightly, 0 ... 1; None without validation images, and in a
            stream of tasks but for its last epoch, which has the mean over tasks.
        seconds: Wall-clock time of the epoch, validation included.
        diverged: The loss was not finite: the trial ends here with the worst accuracy, which is a result.
        watched_accuracy: Share of the task's `watched` images classified rightly, for a benchmark's record alone;
            None where nothing is watched. Its time is not in `seconds`.
    """

    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    diverged: bool = False
    watched_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types; a loss that is not finite becomes None, and what was not watched is absent."""
        values = dataclasses.asdict(self)
        if self.watched_accuracy is None:
            del values["watched_accuracy"]
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochResult:
        """Reads what `to_dict` wrote; a train loss of None becomes infinite."""
        loss = values["train_loss"]
        return cls(**{**values, "train_loss": math.inf if loss is None else loss})


def best_epoch(curve: list[EpochResult] | tuple[EpochResult, ...]) -> EpochResult | None:
    """Returns the epoch with the highest validation accuracy, the lower validation loss breaking ties.

    Without validation images it is the last epoch, as for a stream of tasks, which is validated at its end alone; of an
    empty curve, None.
    """
    if not curve:
        return None
    if curve[-1].val_accuracy is None:
        return curve[-1]
    return max(curve, key=_selection_key)


def _selection_key(result: EpochResult) -> tuple[float, float, int]:
    loss = math.inf if result.val_loss is None else result.val_loss
    accuracy = -1.0 if result.val_accuracy is None else result.val_accuracy
    return accuracy, -loss, -result.epoch


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One fine-tuning run that an engine gives to a worker.

    Attributes:
        key: Name of the run, unique in its study: "trial-0012", "final-0012-seed-1", "retrain-recommended".
        settings: The repaired recipe.
        seed: Seed of head, order, augmentation and dropout.
        split_seed: Seed of another train/validation split; None keeps the task's own.
        train_on_all: Train on train + validation (nothing is validated; the last epoch is kept).
        evaluate_test: Evaluate the kept weights on the test images, once, at the end.
        checkpoint: File to write the running state to and to resume from; None keeps none.
        export: Folder to write the kept model to, for `nbt predict`; None writes none.
    """

    key: str
    settings: TransferSettings
    seed: int = 0
    split_seed: int | None = None
    train_on_all: bool = False
    evaluate_test: bool = False
    checkpoint: Path | None = None
    export: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """How a run ended. Exactly one of these holds: finished, stopped (`stopped`), or failed (`error`).

    Attributes:
        curve: Every epoch that was run, those before a resume included.
        stopped: The reason for which the driver stopped it early, else None.
        error: One line on the exception that ended it, else None.
        traceback: The whole traceback of that exception.
        out_of_memory: The exception was the device running out of memory.
        test_accuracy: 0 ... 1, where it was asked for.
        test_loss: Mean cross-entropy on the test images, where it was asked for.
        facts: Where and how it ran: node, device, gpu (its name), gpu_index, worker, precision, set-up seconds, memory.
    """

    curve: tuple[EpochResult, ...] = ()
    stopped: str | None = None
    error: str | None = None
    traceback: str | None = None
    out_of_memory: bool = False
    test_accuracy: float | None = None
    test_loss: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> EpochResult | None:
        """The kept epoch, see `best_epoch`."""
        return best_epoch(self.curve)

    @property
    def diverged(self) -> bool:
        """Whether the loss left the finite numbers."""
        return bool(self.curve) and self.curve[-1].diverged
