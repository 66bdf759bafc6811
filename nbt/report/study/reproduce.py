"""Commands that make a study's results again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nbt.report.priors.diagnostics import diagnostics_pending, prior_diagnostics
from nbt.tuning.storage.records import StudyConfig, StudyRecord


@dataclass(frozen=True)
class Command:
    """A line for a shell, and what it is for."""

    purpose: str
    text: str


def task_arguments(config: StudyConfig) -> list[str]:
    """Returns the words that say what is transferred to what, as `nbt search` and `nbt train` take them."""
    words = ["--dataset", config.dataset]
    for option, value in (("--data-dir", config.data_dir), ("--backbone", config.backbone)):
        words += [] if value is None else [option, value]
    words += [] if config.weights == "default" else ["--weights", config.weights]
    words += ["--image-size", str(config.image_size)]
    for option, count in (("--classes", config.classes), ("--shots", config.shots)):
        words += [] if count is None else [option, str(count)]
    return words


def commands(
    record: StudyRecord,
    folder: Path,
    *,
    has_settings: bool,
    has_model: bool,
    run_options: Mapping[str, str] = MappingProxyType({}),
) -> list[Command]:
    """Returns how to train again, predict, search on and look at the runs.

    Args:
        record: The study.
        folder: Its report's folder, as commands should name it.
        has_settings: `recommended.yaml` is in the folder.
        has_model: The exported model is in the folder.
        elsewhere: Options of `nbt search` that say where it ran and where it is kept, and their values; the record
            itself does not know.
    """
    config, found = record.config, []
    seed = [] if config.seed == 0 else ["--seed", str(config.seed)]
    stream = [] if config.scenario is None else ["--scenario", config.scenario, "--tasks", str(config.tasks)]
    if has_settings and stream:
        words = [
            "nbt",
            "continual",
            *task_arguments(config),
            *stream,
            "--settings",
            str(folder / "recommended.yaml"),
            *seed,
        ]
        found.append(Command("Learn the stream with the recommended settings again", shlex.join(words)))
    elif has_settings:
        seeds = max((len(final.runs) for final in record.finals), default=1)
        words = ["nbt", "train", *task_arguments(config), "--settings", str(folder / "recommended.yaml")]
        words += ["--seeds", str(seeds), *seed, "--export", str(folder / "model-again")]
        found.append(Command("Train the recommended settings again", shlex.join(words)))
    if has_model:
        text = f"{shlex.join(['nbt', 'predict', str(folder / 'model')])} IMAGES..."
        found.append(Command("Use the trained model", text))
    words = ["nbt", "search", *task_arguments(config), "--budget", record.budget, "--space", config.space]
    # Settings name their teacher themselves, so training does not need it.
    words += [] if config.teacher is None else ["--teacher", config.teacher]
    plain = prior_diagnostics(record) is None and not diagnostics_pending(record)
    words += [*stream, "--epochs", str(config.epochs // config.tasks), *seed]
    if not stream:
        words += ["--pruner", record.pruner, *(["--no-heuristics"] if plain else [])]
    words += ["--study", config.name, *(word for option in run_options.items() for word in option)]
    found.append(Command("Search on: raise the budget of the same command, and it resumes", shlex.join(words)))
    found.append(Command("Compare the trials in MLflow", _mlflow_command(run_options.get("--tracking-uri"))))
    return found


def _mlflow_command(tracking_uri: str | None) -> str:
    """Returns the command that shows MLflow's pages; a server's address, which has pages of its own."""
    if tracking_uri is None or tracking_uri.startswith(("http://", "https://")):
        return tracking_uri or "nbt ui"
    return shlex.join(["nbt", "ui", "--tracking-uri", tracking_uri])
