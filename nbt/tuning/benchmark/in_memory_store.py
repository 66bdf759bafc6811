"""A study store in memory for simulated searches, without database, lock or resumption."""

from __future__ import annotations

from nbt.tuning.experience.recorded_table import TableHeader
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import StudyConfig
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.storage.trial_tables import in_memory_study


class InMemoryStudyStore(StudyStore):
    """A study store that exists only as long as its process.

    Args:
        config: Configuration of the study, including the seed of the search.
        facts: Facts about the dataset, as a live study stores them.
    """

    def __init__(self, config: StudyConfig, facts: dict[str, object] | None = None) -> None:
        super().__init__(in_memory_study(config.name), config)
        self.put(codec.CONFIG, vars(config))
        self.put(codec.DATASET, facts or {})


def replay_study_config(header: TableHeader, space: Space, seed: int) -> StudyConfig:
    """Returns the study configuration of a search on a recorded task.

    Args:
        header: Header of the task's table.
        space: Search space.
        seed: Seed of the sampler and the trials.
    """
    return StudyConfig(
        name=f"replay-{seed}",
        dataset=header.dataset,
        backbone=header.backbone,
        weights=header.weights,
        space=space.source,
        space_hash=space.hash,
        data_hash=header.data_hash,
        weights_hash=header.weights_hash,
        image_size=header.image_size,
        epochs=header.epochs,
        seed=seed,
        classes=header.classes,
        shots=header.shots,
    )
