"""PreparedSearch: what is asked of a search, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.progress import Progress
from nbt.tuning.budget import Budget
from nbt.tuning.engines.factory import EngineFactory
from nbt.tuning.storage.records import StudyConfig

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.space.space import Space
    from nbt.tuning.transferred_priors import TransferredPriors


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSearch:
    """The arguments of a search, checked.

    Attributes:
        elsewhere: As in `nbt.report.study.reproduce.commands`; the others as in `nbt.api.search`.
    """

    config: StudyConfig
    budget: Budget
    space: Space
    pruner: str
    heuristics: bool
    transferred_priors: TransferredPriors | None
    storage: str | None
    engine: EngineFactory
    final_seeds: int
    out: Path
    run_options: Mapping[str, str]
    fresh: bool
    progress: Progress | None


def make_study_config(task: Task, space: Space, study: str | None, epochs: int) -> StudyConfig:
    """Returns what makes a study this one and no other."""
    from nbt.models.weights import hash_weights
    from nbt.tuning.storage.study_names import default_study_name

    derived = default_study_name(task.dataset, task.backbone.text, space.name)
    return StudyConfig(
        name=study or (derived if task.scenario is None else f"{derived}-{task.scenario}{task.tasks}"),
        dataset=task.dataset,
        backbone=task.backbone.text,
        weights=task.weights,
        space=space.source,
        space_hash=space.hash,
        data_hash=task.fingerprint,
        weights_hash=hash_weights(task.w0),
        image_size=task.image_size,
        epochs=epochs * (task.tasks or 1),
        seed=task.seed,
        data_dir=task.data_dir,
        classes=task.classes,
        shots=task.shots,
        teacher=None if task.teacher is None else task.teacher.name,
        teacher_hash=None if task.teacher is None else hash_weights(task.teacher.w0),
        scenario=task.scenario,
        tasks=task.tasks or 1,
    )
