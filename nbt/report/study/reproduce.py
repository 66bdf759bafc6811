"""Commands that reproduce or continue a study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nbt.report.priors.diagnostics import diagnostics_pending, prior_diagnostics
from nbt.tuning.storage.records import StudyConfig, StudyRecord


@dataclass(frozen=True)
class ShellCommand:
    """A shell command and its purpose."""

    purpose: str
    text: str


def task_arguments(config: StudyConfig) -> list[str]:
    """Returns the arguments of `nbt search` and `nbt train` that define the task."""
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
) -> list[ShellCommand]:
    """Returns the commands to train again, predict, continue the search and show the runs in MLflow.

    Args:
        record: The study.
        folder: Folder of the study's report, as it appears in the commands.
        has_settings: Whether `recommended.yaml` is in the folder.
        has_model: Whether the exported model is in the folder.
        run_options: Options of `nbt search`, with values, that say where the study ran and where it is stored; the
            record does not contain them.
    """
    config, listed = record.config, []
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
        listed.append(ShellCommand("Train the stream again with the recommended settings", shlex.join(words)))
    elif has_settings:
        seeds = max((len(final.runs) for final in record.finals), default=1)
        words = ["nbt", "train", *task_arguments(config), "--settings", str(folder / "recommended.yaml")]
        words += ["--seeds", str(seeds), *seed, "--export", str(folder / "model-again")]
        listed.append(ShellCommand("Train again with the recommended settings", shlex.join(words)))
    if has_model:
        text = f"{shlex.join(['nbt', 'predict', str(folder / 'model')])} IMAGES..."
        listed.append(ShellCommand("Predict with the trained model", text))
    words = ["nbt", "search", *task_arguments(config), "--budget", record.budget, "--space", config.space]
    # The settings contain the teacher, so only the search needs the option.
    words += [] if config.teacher is None else ["--teacher", config.teacher]
    without_priors = prior_diagnostics(record) is None and not diagnostics_pending(record)
    words += [*stream, "--epochs", str(config.epochs // config.tasks), *seed]
    if not stream:
        words += ["--pruner", record.pruner, *(["--no-heuristics"] if without_priors else [])]
    words += ["--study", config.name, *(word for option in run_options.items() for word in option)]
    listed.append(ShellCommand("Continue the search with this command and a larger --budget", shlex.join(words)))
    listed.append(ShellCommand("Compare the trials in MLflow", _mlflow_command(run_options.get("--tracking-uri"))))
    return listed


def _mlflow_command(tracking_uri: str | None) -> str:
    """Returns the command that shows MLflow's pages, or the address of an MLflow server."""
    if tracking_uri is None or tracking_uri.startswith(("http://", "https://")):
        return tracking_uri or "nbt ui"
    return shlex.join(["nbt", "ui", "--tracking-uri", tracking_uri])
