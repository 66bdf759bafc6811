"""PreparedSearch: the checked arguments of a search."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.metrics import DEFAULT_METRIC
from nbt.progress import Progress
from nbt.search_config import SearchConfig
from nbt.settings.teacher_names import teacher_names_text
from nbt.tuning.budget import Budget
from nbt.tuning.engines.factory import EngineFactory
from nbt.tuning.storage.candidates import CandidateConfig
from nbt.tuning.storage.records import StudyConfig

if TYPE_CHECKING:
    from nbt.api._candidates import Candidates
    from nbt.models.teacher import Teacher
    from nbt.task.task import Task
    from nbt.tuning.space.space import Space
    from nbt.tuning.transferred_priors import TransferredPriors


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSearch:
    """A search whose options were checked and whose task is loaded.

    Attributes:
        options: Options of the search, with names and paths that mean the same in every folder.
        config: Configuration that identifies the study.
        budget: Budget of the study in all its sessions together.
        space: Search space without the dimensions that do not apply to the task.
        pruner: Pruner that is used, "none" for streams.
        heuristics: Whether priors and experience guide the proposals.
        transferred_priors: Models of the recorded tables; None if neither proposals nor pruner need them.
        engine: Factory of the engine that runs the trials.
        progress: Progress callback, or None.
        candidates: The backbones to choose from; None with one backbone.
    """

    options: SearchConfig
    config: StudyConfig
    budget: Budget
    space: Space
    pruner: str
    heuristics: bool
    transferred_priors: TransferredPriors | None
    engine: EngineFactory
    progress: Progress | None
    candidates: Candidates | None = None

    @property
    def out(self) -> Path:
        """Folder of the reports."""
        return Path(self.options.out)

    @property
    def fitted_priors(self) -> TransferredPriors | None:
        """The models of the recorded tables if the search needs all of them; None if the forests are left out.

        Only the pruner `fit` forecasts learning curves, for which forests are fitted that take seconds.
        """
        return self.transferred_priors if self.pruner == "fit" else None


def make_study_config(
    task: Task,
    space: Space,
    study: str | None,
    epochs: int,
    metric: str = DEFAULT_METRIC,
    candidates: Sequence[CandidateConfig] = (),
) -> StudyConfig:
    """Returns the configuration that identifies a study.

    Args:
        task: Task of the study.
        space: Search space, with all its dimensions.
        study: Name of the study; derived from dataset, backbone and space when None.
        epochs: Epochs of a full trial, or of each task of a stream.
        metric: Name of the metric to optimise.
        candidates: As in `StudyConfig`.
    """
    from nbt.tuning.storage.study_names import default_study_name

    source = task.any_source_data
    derived = default_study_name(task.dataset, task.backbone.text, space.name)
    return StudyConfig(
        name=study or (derived if task.scenario is None else f"{derived}-{task.scenario}{task.tasks}"),
        dataset=task.dataset,
        backbone=task.backbone.text,
        weights=task.weights,
        space=space.source,
        space_hash=space.hash,
        data_hash=task.fingerprint,
        weights_hash=task.weights_hash,
        image_size=task.image_size,
        epochs=epochs * (task.tasks or 1),
        seed=task.seed,
        data_dir=task.data_dir,
        classes=task.classes,
        shots=task.shots,
        teacher=_teacher_text(task.teachers),
        teacher_hash=_hash_teachers(task.teachers),
        scenario=task.scenario,
        tasks=task.tasks or 1,
        content_hash=task.content_hash,
        metric=metric,
        candidates=tuple(candidates),
        source_data=None if source is None else source.dataset,
        source_data_hash=None if source is None else source.fingerprint,
    )


def _teacher_text(teachers: Sequence[Teacher]) -> str | None:
    return teacher_names_text([teacher.name for teacher in teachers]) if teachers else None


def _hash_teachers(teachers: Sequence[Teacher]) -> str | None:
    """Returns the fingerprint of the teachers' weights, which does not depend on the order of several teachers."""
    from nbt.models.weights import hash_weights

    hashes = sorted(hash_weights(teacher.w0, teacher.stale_statistics) for teacher in teachers)
    if len(hashes) < 2:
        return hashes[0] if hashes else None
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
