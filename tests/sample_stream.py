"""Synthetic streams of tasks for tests of reports, MLflow tracking and the command line."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from nbt.settings.continual import ContinualSettings
from nbt.training.continual.results import ContinualResult, TaskScore
from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord, default_continual_settings

STARTED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
MATRIX = ((0.9, 0.3, 0.2), (0.7, 0.8, 0.4), (0.6, 0.7, 0.95))
BETTER = ((0.9, 0.3, 0.2), (0.9, 0.8, 0.4), (0.95, 0.85, 0.9))
NAMES = ("gull", "owl", "wren", "kite", "rook", "lark")


def make_config(method: str = "dlcft", *, seed: int = 0, scenario: str = "task", **changes: Any) -> StreamConfig:
    fields: dict[str, Any] = {
        "method": method,
        "settings": default_continual_settings(method, scenario, 3),
        "seed": seed,
        "dataset": "birds",
        "backbone": "mobilenet_v2(width_mult=0.35)",
        "weights": "default",
        "image_size": 64,
        "data_hash": "d" * 16,
        "weights_hash": "w" * 16,
    }
    return StreamConfig(**{**fields, **changes})


def make_scores(matrix: tuple[tuple[float, ...], ...] = MATRIX) -> tuple[TaskScore, ...]:
    return tuple(
        TaskScore(number, (2 * number - 2, 2 * number - 1), 100 * number, 0.5 / number, row, 10.0 * number)
        for number, row in enumerate(matrix, start=1)
    )


def make_stream(
    method: str = "dlcft",
    matrix: tuple[tuple[float, ...], ...] = MATRIX,
    *,
    seed: int = 0,
    scenario: str = "task",
    images: tuple[int, ...] = (40, 50, 60),
    **changes: Any,
) -> StreamRecord:
    config = make_config(method, seed=seed, scenario=scenario, **changes)
    untrained = None if scenario == "class" else (0.5, 0.4, 0.3) if len(matrix) == 3 else (0.5,) * len(matrix)
    order = tuple(NAMES[label] for label in range(6))
    result = ContinualResult(config.settings, seed, "test", order, make_scores(matrix), untrained)
    return StreamRecord(
        config=config,
        result=result,
        images=images,
        class_names=NAMES,
        started=STARTED,
        curvature_bytes=3 * 2**20 if method == "dlcft" else 0,
        facts={"device": "cpu", "classes": 6},
    )


def with_settings(config: StreamConfig, **changes: Any) -> StreamConfig:
    """Replaces fields of the settings, or of the recipe for names that the settings do not have."""
    settings = config.settings
    direct = {name: value for name, value in changes.items() if name in ContinualSettings.__dataclass_fields__}
    recipe = settings.recipe.replace(**{name: value for name, value in changes.items() if name not in direct})
    return replace(config, settings=replace(settings, **direct, recipe=recipe))
