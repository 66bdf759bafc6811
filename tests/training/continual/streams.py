"""Helpers that run complete streams."""

from __future__ import annotations

from typing import Any

from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings, method_overrides
from nbt.task.task import Task
from nbt.training.continual.results import ContinualResult, TaskScore
from nbt.training.continual.run import run_continual

QUICK = TransferSettings(epochs=2, head_lr=0.05, body_lr=0.01, batch_size=16)


def make_stream_settings(
    method: str, scenario: str, *, tasks: int = 2, recipe: dict[str, Any] | None = None, **options: Any
):
    """Returns settings of a stream with one of the methods; `recipe` overrides the quick default recipe."""
    overrides = method_overrides(method, scenario)
    if overrides.get("zap_period"):
        overrides["zap_period"] = 1  # the default period is too long for the few epochs
    return ContinualSettings(
        scenario=scenario, tasks=tasks, recipe=QUICK.replace(**{**overrides, **(recipe or {})}), **options
    )


def run(task: Task, settings: ContinualSettings, seed: int = 0, **options: Any) -> ContinualResult:
    stream = run_continual(task, settings, seed, **options)
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def untimed(result: ContinualResult) -> list[tuple[Any, ...]]:
    return [untimed_score(score) for score in result.scores]


def untimed_score(score: TaskScore) -> tuple[Any, ...]:
    return (score.task, score.classes, score.n_train, score.train_loss, score.accuracies, score.diverged)
