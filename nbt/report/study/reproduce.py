"""Commands that reproduce or continue a study."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbt.report.study.recommendation import recommended_task_options
from nbt.tuning.storage.records import StudyRecord

# The settings contain the teacher, and the commands of streams their scenario.
_NEUTRAL: dict[str, Any] = {"teacher": None, "scenario": None, "tasks": None}


@dataclass(frozen=True)
class ShellCommand:
    """A shell command and its purpose."""

    purpose: str
    text: str


def commands(
    record: StudyRecord,
    folder: Path,
    *,
    has_settings: bool,
    has_model: bool,
) -> list[ShellCommand]:
    """Returns the commands to train again, predict, continue the search and show the runs in MLflow.

    Args:
        record: The study.
        folder: Folder of the study's report, as it appears in the commands.
        has_settings: Whether `recommended.yaml` is in the folder.
        has_model: Whether the exported model is in the folder.
    """
    search = record.search_config()
    task = _task_words(record)
    seed = [] if search.seed == 0 else ["--seed", str(search.seed)]
    stream = [] if search.scenario is None else ["--scenario", search.scenario, "--tasks", str(record.config.tasks)]
    listed = []
    if has_settings and stream:
        words = ["nbt", "continual", *task, *stream, "--settings", str(folder / "recommended.yaml"), *seed]
        listed.append(ShellCommand("Train the stream again with the recommended settings", shlex.join(words)))
    elif has_settings:
        seeds = max((len(final.runs) for final in record.finals), default=1)
        more = shlex.join(["--seeds", str(seeds), *seed, "--export", str(folder / "model-again")])
        text = f"{train_command(record, folder / 'recommended.yaml')} {more}"
        listed.append(ShellCommand("Train again with the recommended settings", text))
    if has_model:
        text = f"{shlex.join(['nbt', 'predict', str(folder / 'model')])} IMAGES..."
        listed.append(ShellCommand("Predict with the trained model", text))
    listed.append(ShellCommand("Continue the search with this command and a larger --budget", search.command()))
    tracking_uri = search.command_options().get("--tracking-uri")
    listed.append(ShellCommand("Compare the trials in MLflow", _mlflow_command(tracking_uri)))
    return listed


def train_command(record: StudyRecord, settings: Path) -> str:
    """Returns the command that trains with the recommended settings of a study, which are in a file."""
    return shlex.join(["nbt", "train", *_task_words(record), "--settings", str(settings)])


def _task_words(record: StudyRecord) -> list[str]:
    return recommended_task_options(record).replace(**_NEUTRAL).command_words("task")


def _mlflow_command(tracking_uri: str | None) -> str:
    """Returns the command that shows MLflow's pages, or the address of an MLflow server."""
    if tracking_uri is None or tracking_uri.startswith(("http://", "https://")):
        return tracking_uri or "nbt ui"
    return shlex.join(["nbt", "ui", "--tracking-uri", tracking_uri])
