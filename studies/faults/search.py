"""The searches of a campaign: their tasks, folders and commands, and the undisturbed search that others must equal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.process import REPOSITORY, Process, start

STUDY, EPOCHS, BUDGET = "s", 3, 6
PHASES = ("start", "prepare", "profile", "trials", "finals", "train", "report")
"""The phases of a search: "start" is the time before the first other one, "prepare" decodes the images."""
TASKS = ("digits", "photographs")
OPTIONS: dict[int, tuple[str, ...]] = {
    0: ("--experience", "../../experience"),
    1: ("--no-heuristics", "--pruner", "asha", "--no-images"),
}
"""Seed of a search -> its further options: the default search, and a plain one."""
NO_SERVER = "http://127.0.0.1:1"
TIMEOUT_SECONDS = 240.0


@dataclass(frozen=True)
class Search:
    """A search in a folder of its own.

    Attributes:
        folder: The folder, with the folders work (of the commands), cache, temporary and logs.
        task: One of `TASKS`.
        seed: Seed of the search.
        workers: Number of workers.
        engine: "local" or "ray".
        storage: URL of the studies; "" for the file `database`.
        options: Further options of the search.
        engine_options: Options of an engine other than "local".
        environment: Further environment variables of its commands.
    """

    folder: Path
    task: str
    seed: int
    workers: int = 1
    engine: str = "local"
    storage: str = ""
    options: list[str] = field(default_factory=list)
    engine_options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """Working directory of the commands."""
        return self.folder / "work"

    @property
    def database(self) -> Path:
        """The file of the studies, unless they are on a server."""
        return self.work / ".nbt" / "studies.db"

    @property
    def url(self) -> str:
        """URL of the studies."""
        return self.storage or f"sqlite:///{self.database}"

    @property
    def exists(self) -> bool:
        """Whether the database of the studies exists."""
        return bool(self.storage) or self.database.exists()

    @property
    def report(self) -> Path:
        """Folder of report and model."""
        return self.work / "reports" / STUDY

    @property
    def outer_logs(self) -> Path:
        """Folder beside that of the search, for the logs of a search whose own disk is full."""
        return self.folder.with_name(f"{self.folder.name}-logs")

    def remove(self) -> None:
        """Removes the folder of the search and its logs beside it."""
        for folder in (self.folder, self.outer_logs):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of the search."""
        dataset = "digits" if self.task == "digits" else str(photographs(self.folder.parent))
        shots = ("--shots", "24") if self.task == "digits" else ()
        return (
            *("search", "--dataset", dataset, *shots, "--image-size", "32", "--backbone", "conv3(width=8)"),
            *("--weights", "none", "--epochs", str(EPOCHS), "--budget", str(BUDGET), "--final-seeds", "2"),
            *("--seed", str(self.seed), "--workers", str(self.workers), "--engine", self.engine),
            *("--study", STUDY, "--json", *OPTIONS[self.seed], *self.options, *self.storage_options),
            *(self.engine_options if self.engine != "local" else ()),
        )

    @property
    def storage_options(self) -> tuple[str, ...]:
        """Options for the database of the studies."""
        return ("--storage", self.storage) if self.storage else ()

    def prepare(self) -> None:
        """Creates the folders anew; MLflow's tables, which it takes seconds to create, are copied from a template."""
        self.remove()
        self.work.mkdir(parents=True)
        for name in ("cache", "temporary", "logs"):
            (self.folder / name).mkdir()
        # One table of experience instead of all takes a fifth of the time before the first trial.
        experience = self.folder.parent / "experience"
        if not experience.exists():
            experience.mkdir()
            shutil.copy(REPOSITORY / "studies" / "recorded" / "digits.parquet", experience)
        template = self.folder.parent / "mlflow.db"
        if template.exists():
            (self.work / ".nbt").mkdir(exist_ok=True)
            shutil.copy(template, self.work / ".nbt" / "mlflow.db")

    def run(
        self,
        name: str,
        arguments: tuple[str, ...] | None = None,
        *,
        setup: Callable[[], None] | None = None,
        fork: bool = True,
    ) -> Process:
        """Starts a command in the folder, by default the search; `name` is the folder of its output below logs."""
        environment = {
            "NBT_CACHE": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "temporary"),
            "RAY_TMPDIR": f"/tmp/nbtr{os.getpid()}",
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        logs = self.folder / "logs" / name
        return start(self.work, logs, arguments or self.arguments, environment=environment, setup=setup, fork=fork)


def photographs(folder: Path) -> Path:
    """Returns a folder of images of two classes, patches of the two photographs of scikit-learn; creates it once."""
    dataset = folder / "photographs"
    if dataset.exists():
        return dataset
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        photograph = load_sample_image(f"{name}.jpg")
        (dataset / name).mkdir(parents=True)
        for number in range(60):
            top, left = (int(rng.integers(0, side - 96)) for side in photograph.shape[:2])
            patch = Image.fromarray(photograph[top : top + 96, left : left + 96]).resize((40, 36 + number % 9))
            patch.save(dataset / name / f"{number:03d}.{'png' if number % 2 else 'jpg'}")
    return dataset
