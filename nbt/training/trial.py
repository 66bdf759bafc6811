"""run_job: what a worker does with a run that an engine hands it."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

from nbt.task.task import Task
from nbt.training.devices import out_of_memory, precision
from nbt.training.evaluation import evaluate_model
from nbt.training.export import export_model
from nbt.training.fine_tune import FineTuned, fine_tune
from nbt.training.results import EpochResult, TrialJob, TrialOutcome
from nbt.training.stream_trial import stream_trial
from nbt.training.workbench import Workbench

Result = TypeVar("Result")
OnEpoch = Callable[[EpochResult], str | None]


def run_job(job: TrialJob, bench: Workbench, on_epoch: OnEpoch) -> TrialOutcome:
    """Runs one job to its end; what goes wrong is in the outcome.

    Args:
        job: What to run.
        bench: The worker's tools.
        on_epoch: Called after every newly run epoch; a text it returns is the reason to stop.

    Returns:
        The outcome. Only KeyboardInterrupt, SystemExit and the like are raised.
    """
    try:
        return _run(job, bench, on_epoch)
    except Exception as error:
        outcome = _failure(error, bench)
    if outcome.out_of_memory:
        # Only here: the exception held the frames of the trial, and they its tensors.
        bench.clear()
    return outcome


def _failure(error: Exception, bench: Workbench) -> TrialOutcome:
    """Returns what is told of an exception while it is handled, in words and numbers only."""
    full = out_of_memory(error)
    facts = _facts(bench) if full else _device_facts(bench)
    return TrialOutcome(error=_one_line(error), traceback=traceback.format_exc(), out_of_memory=full, facts=facts)


def _run(job: TrialJob, bench: Workbench, on_epoch: OnEpoch) -> TrialOutcome:
    task = task_of(job, bench.task)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    outcome = _run_stream(job, task, bench, on_epoch) if task.scenario else _run_alone(job, task, bench, on_epoch)
    if job.checkpoint is not None:
        job.checkpoint.unlink(missing_ok=True)
    return outcome


def _run_alone(job: TrialJob, task: Task, bench: Workbench, on_epoch: OnEpoch) -> TrialOutcome:
    trial = fine_tune(task, job.settings, job.seed, bench=bench, checkpoint=job.checkpoint)
    tuned, reason = _to_end(trial, on_epoch)
    outcome = TrialOutcome(
        curve=tuned.curve, stopped=reason, facts={**_facts(bench), "setup_seconds": tuned.setup_seconds}
    )
    return outcome if reason is not None else _use(job, task, bench, tuned, outcome)


def _run_stream(job: TrialJob, task: Task, bench: Workbench, on_epoch: OnEpoch) -> TrialOutcome:
    evaluate_on = "test" if job.evaluate_test else "val"
    trial = stream_trial(task, job.settings, job.seed, bench=bench, checkpoint=job.checkpoint, evaluate_on=evaluate_on)
    learnt, reason = _to_end(trial, on_epoch)
    outcome = TrialOutcome(curve=learnt.curve, stopped=reason, facts=_facts(bench))
    if reason is None and job.evaluate_test:
        return dataclasses.replace(outcome, test_accuracy=learnt.result.average_accuracy)
    return outcome


def _to_end(trial: Generator[EpochResult, bool | None, Result], on_epoch: OnEpoch) -> tuple[Result, str | None]:
    """Runs a trial; returns what it leaves behind, and the reason for which it was stopped."""
    reason: str | None = None
    try:
        result = next(trial)
        while True:
            reason = on_epoch(result) or reason
            result = trial.send(reason is not None)
    except StopIteration as end:
        return end.value, reason


def task_of(job: TrialJob, task: Task) -> Task:
    """Returns the task with the split that the job asks for."""
    if job.split_seed is not None:
        task = task.with_split_seed(job.split_seed)
    return task.train_on_all() if job.train_on_all else task


def _use(job: TrialJob, task: Task, bench: Workbench, tuned: FineTuned, outcome: TrialOutcome) -> TrialOutcome:
    """Does what the job wants done with the finished model."""
    if job.evaluate_test:
        loss, accuracy = evaluate_model(bench, tuned.model, task.split.test)
        outcome = dataclasses.replace(outcome, test_loss=loss, test_accuracy=accuracy)
    if job.export is not None:
        export_model(tuned.model, task, tuned.settings, job.export)
    return outcome


def _facts(bench: Workbench) -> dict[str, Any]:
    """Returns what a run says of its device and of the memory that it took, all that this process holds included."""
    facts = _device_facts(bench)
    if bench.device.type == "cuda":
        facts["peak_memory_bytes"] = torch.cuda.max_memory_reserved(bench.device)
        facts["cache_memory_bytes"] = bench.cache_memory
        facts["device_memory_bytes"] = torch.cuda.mem_get_info(bench.device)[1]
    return facts


def _device_facts(bench: Workbench) -> dict[str, Any]:
    facts: dict[str, Any] = {"device": str(bench.device), "precision": precision(bench.device)}
    if bench.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(bench.device)
    return facts


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
