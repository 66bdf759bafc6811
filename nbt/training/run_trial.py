"""Execution of a trial specification in a worker."""

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
from nbt.training.source_accuracy import source_accuracy
from nbt.training.worker.context import WorkerContext

Result = TypeVar("Result")
OnEpoch = Callable[[EpochResult], str | None]


def run_trial(spec: TrialSpec, context: WorkerContext, on_epoch: OnEpoch) -> TrialOutcome:
    """Runs a trial to its end. Exceptions of the trial are part of the outcome.

    Args:
        spec: Specification of the trial.
        context: The worker's context.
        on_epoch: Called after every epoch that the driver does not have; returns the reason to stop the trial, or None
            to continue.

    Returns:
        The outcome. Only exceptions such as KeyboardInterrupt and SystemExit are raised.
    """
    try:
        return _run(spec, context, on_epoch)
    except Exception as error:
        outcome = failed_outcome(error, context)
    if outcome.out_of_memory:
        # Not in the except block: there the exception still holds the frames of the trial and their tensors.
        context.clear()
    return outcome


def failed_outcome(error: Exception, context: WorkerContext) -> TrialOutcome:
    """Returns the outcome of an exception that is being handled, without a reference to the exception."""
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
    trial = fine_tune(
        task,
        spec.settings,
        spec.seed,
        context=context,
        checkpoint=spec.checkpoint,
        known_epochs=spec.known_epochs,
    )
    result, reason = _run_to_end(trial, on_epoch)
    outcome = TrialOutcome(
        curve=result.curve,
        stopped=reason,
        facts={**_run_facts(context), "setup_seconds": result.setup_seconds, "optimizer": result.optimizer},
    )
    return outcome if reason is not None else _evaluate_and_export(spec, task, context, result, outcome)


def _run_stream(spec: TrialSpec, task: Task, context: WorkerContext, on_epoch: OnEpoch) -> TrialOutcome:
    evaluate_on = "test" if spec.evaluate_test else "val"
    trial = stream_trial(
        task,
        spec.settings,
        spec.seed,
        context=context,
        checkpoint=spec.checkpoint,
        known_epochs=spec.known_epochs,
        evaluate_on=evaluate_on,
    )
    stream_result, reason = _run_to_end(trial, on_epoch)
    outcome = TrialOutcome(curve=stream_result.curve, stopped=reason, facts=_run_facts(context))
    if reason is None and spec.evaluate_test:
        return dataclasses.replace(outcome, test_accuracy=stream_result.result.average_accuracy)
    return outcome


def _run_to_end(trial: Generator[EpochResult, bool | None, Result], on_epoch: OnEpoch) -> tuple[Result, str | None]:
    """Runs a trial; returns its result and the reason to stop it, or None if it was not stopped."""
    reason: str | None = None
    try:
        result = next(trial)
        while True:
            reason = on_epoch(result) or reason
            result = trial.send(reason is not None)
    except StopIteration as end:
        return end.value, reason


def task_for_trial(spec: TrialSpec, task: Task) -> Task:
    """Returns the task with the split of the trial specification."""
    if spec.split_seed is not None:
        task = task.with_split_seed(spec.split_seed, spec.fold)
    if spec.max_train_images is not None:
        task = dataclasses.replace(task, split=task.split.thin_out(spec.max_train_images))
    return task.train_on_all() if spec.train_on_all else task


def _evaluate_and_export(
    spec: TrialSpec, task: Task, context: WorkerContext, result: FineTuneResult, outcome: TrialOutcome
) -> TrialOutcome:
    """Evaluates the finished model on test and source images and exports it, if the specification requests it.

    A model whose training diverged has no usable weights: its accuracies are 0, and it is not exported.
    """
    measures_source = spec.measure_source and task.source_data is not None
    if outcome.diverged:
        return dataclasses.replace(
            outcome,
            test_accuracy=0.0 if spec.evaluate_test else None,
            source_accuracy=0.0 if measures_source else None,
        )
    if measures_source:
        outcome = dataclasses.replace(outcome, source_accuracy=source_accuracy(result.model, task))
    predictions = result.predictions
    if spec.evaluate_test:
        test = evaluate_model(context, result.model, task.split.test)
        predictions = test.predictions
        outcome = dataclasses.replace(outcome, test_loss=test.loss, test_accuracy=test.accuracy)
    if spec.keep_predictions:
        outcome = dataclasses.replace(outcome, predictions=predictions)
    if spec.export is not None:
        export_model(result.model, task, result.settings, spec.export)
    return outcome


def _run_facts(context: WorkerContext) -> dict[str, Any]:
    """Returns the device of a run and, on a GPU, the memory of the process, of its cache and of the device in bytes."""
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
