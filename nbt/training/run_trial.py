"""run_trial: what a worker does with a run that an engine hands it."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

from nbt.devices import out_of_memory, precision
from nbt.task.task import Task
from nbt.training.continual.stream_trial import stream_trial
from nbt.training.evaluation import evaluate_model
from nbt.training.export.exported_model import export_model
from nbt.training.fine_tune import FineTuneResult, fine_tune
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.training.worker.context import WorkerContext

Result = TypeVar("Result")
OnEpoch = Callable[[EpochResult], str | None]


def run_trial(spec: TrialSpec, context: WorkerContext, on_epoch: OnEpoch) -> TrialOutcome:
    """Runs one spec to its end; what goes wrong is in the outcome.

    Args:
        spec: What to run.
        bench: The worker's tools.
        on_epoch: Called after every newly run epoch; a text it returns is the reason to stop.

    Returns:
        The outcome. Only KeyboardInterrupt, SystemExit and the like are raised.
    """
    try:
        return _run(spec, context, on_epoch)
    except Exception as error:
        outcome = _failed_outcome(error, context)
    if outcome.out_of_memory:
        # Only here: the exception held the frames of the trial, and they its tensors.
        context.clear()
    return outcome


def _failed_outcome(error: Exception, context: WorkerContext) -> TrialOutcome:
    """Returns what is told of an exception while it is handled, in words and numbers only."""
    is_out_of_memory = out_of_memory(error)
    facts = _run_facts(context) if is_out_of_memory else _device_facts(context)
    return TrialOutcome(
        error=_one_line(error), traceback=traceback.format_exc(), out_of_memory=is_out_of_memory, facts=facts
    )


def _run(spec: TrialSpec, context: WorkerContext, on_epoch: OnEpoch) -> TrialOutcome:
    task = task_for_trial(spec, context.task)
    if context.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(context.device)
    outcome = (
        _run_stream(spec, task, context, on_epoch) if task.scenario else _run_fine_tuning(spec, task, context, on_epoch)
    )
    if spec.checkpoint is not None:
        spec.checkpoint.unlink(missing_ok=True)
    return outcome


def _run_fine_tuning(spec: TrialSpec, task: Task, context: WorkerContext, on_epoch: OnEpoch) -> TrialOutcome:
    trial = fine_tune(task, spec.settings, spec.seed, context=context, checkpoint=spec.checkpoint)
    tuned, reason = _run_to_end(trial, on_epoch)
    outcome = TrialOutcome(
        curve=tuned.curve, stopped=reason, facts={**_run_facts(context), "setup_seconds": tuned.setup_seconds}
    )
    return outcome if reason is not None else _evaluate_and_export(spec, task, context, tuned, outcome)


def _run_stream(spec: TrialSpec, task: Task, context: WorkerContext, on_epoch: OnEpoch) -> TrialOutcome:
    evaluate_on = "test" if spec.evaluate_test else "val"
    trial = stream_trial(
        task, spec.settings, spec.seed, context=context, checkpoint=spec.checkpoint, evaluate_on=evaluate_on
    )
    stream_result, reason = _run_to_end(trial, on_epoch)
    outcome = TrialOutcome(curve=stream_result.curve, stopped=reason, facts=_run_facts(context))
    if reason is None and spec.evaluate_test:
        return dataclasses.replace(outcome, test_accuracy=stream_result.result.average_accuracy)
    return outcome


def _run_to_end(trial: Generator[EpochResult, bool | None, Result], on_epoch: OnEpoch) -> tuple[Result, str | None]:
    """Runs a trial; returns what it leaves behind, and the reason for which it was stopped."""
    reason: str | None = None
    try:
        result = next(trial)
        while True:
            reason = on_epoch(result) or reason
            result = trial.send(reason is not None)
    except StopIteration as end:
        return end.value, reason


def task_for_trial(spec: TrialSpec, task: Task) -> Task:
    """Returns the task with the split that the spec asks for."""
    if spec.split_seed is not None:
        task = task.with_split_seed(spec.split_seed)
    return task.train_on_all() if spec.train_on_all else task


def _evaluate_and_export(
    spec: TrialSpec, task: Task, context: WorkerContext, tuned: FineTuneResult, outcome: TrialOutcome
) -> TrialOutcome:
    """Does what the spec wants done with the finished model."""
    if spec.evaluate_test:
        loss, accuracy = evaluate_model(context, tuned.model, task.split.test)
        outcome = dataclasses.replace(outcome, test_loss=loss, test_accuracy=accuracy)
    if spec.export is not None:
        export_model(tuned.model, task, tuned.settings, spec.export)
    return outcome


def _run_facts(context: WorkerContext) -> dict[str, Any]:
    """Returns what a run says of its device and of the memory that it took, all that this process holds included."""
    facts = _device_facts(context)
    if context.device.type == "cuda":
        facts["peak_memory_bytes"] = torch.cuda.max_memory_reserved(context.device)
        facts["cache_memory_bytes"] = context.cache_memory
        facts["device_memory_bytes"] = torch.cuda.mem_get_info(context.device)[1]
    return facts


def _device_facts(context: WorkerContext) -> dict[str, Any]:
    facts: dict[str, Any] = {"device": str(context.device), "precision": precision(context.device)}
    if context.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(context.device)
    return facts


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
