"""Write: the files of a report, each whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbt.errors import NbtError
from nbt.files import write_all
from nbt.report.files import report_folder
from nbt.report.formatting import format_interval, one_line, percent, pluralise
from nbt.report.study.recommendation import StudyRecommendation, current_recommendation
from nbt.report.study.render import render_html, render_markdown
from nbt.report.study.report_data import build_report
from nbt.report.study.text import comparison_to_default
from nbt.report.study.trials_frame import trials_frame
from nbt.training.export.model_folder import was_trained_with
from nbt.tuning.storage.records import StudyRecord

SETTINGS_FILE = "recommended.yaml"
FIT_FILE = "fit.json"
FILES = ("report.md", SETTINGS_FILE, "trials.csv", FIT_FILE, "report.html")
"""What `write_report` writes, in the order in which it appears; `model/` and others beside it are left alone."""


def write_report(record: StudyRecord, out: str | Path, *, run_options: Mapping[str, str] | None = None) -> Path:
    """Writes the report of a study, finished or not, to its folder in `out`.

    `report.html`, `report.md`, `trials.csv`, `fit.json` where the study has a fit profile and, as soon as there is a
    full-length trial, `recommended.yaml`. All are made before the first is written, each is written to a temporary
    name and renamed, and the HTML page that speaks of the others comes last: whoever sees it sees files that belong
    to it.

    Args:
        record: The study.
        out: Folder of reports.
        elsewhere: As in `nbt.report.study.reproduce.commands`.

    Returns:
        The path of `report.html`.

    Raises:
        NbtError: The folder cannot be written.
    """
    folder = report_folder(out, record.config.name)
    data = build_report(record, folder, has_model=_has_model(record, folder), run_options=run_options or {})
    texts = {
        "report.md": render_markdown(data),
        SETTINGS_FILE: None if data.choice is None else settings_file(record, data.choice),
        FIT_FILE: None if record.profile is None else fit_file(record.profile),
        "trials.csv": trials_frame(record).to_csv(index=False, lineterminator="\n"),
        "report.html": render_html(data),
    }
    try:
        write_all(folder, {name: texts[name] for name in FILES})
    except OSError as error:
        raise NbtError(f"{folder}: cannot write the report ({error.strerror or error}); --out names another") from error
    return folder / "report.html"


def _has_model(record: StudyRecord, folder: Path) -> bool:
    """Tells whether the model of what is recommended is in the folder; one of an earlier choice is left unmentioned.

    It is exported with the test, so without one the folder's model is of another study, whatever its settings are.
    """
    choice = current_recommendation(record)
    tested = any(test.name == "recommended" for test in record.test)
    return tested and choice is not None and was_trained_with(folder / "model", choice.settings)


def fit_file(profile: Mapping[str, Any]) -> str:
    """Returns the text of `fit.json`, which `nbt.fit.FitProfile.from_json` reads."""
    return json.dumps(profile, indent=2) + "\n"


def settings_file(record: StudyRecord, choice: StudyRecommendation) -> str:
    """Returns the text of `recommended.yaml`: comments on where the settings come from, then the settings.

    `TransferSettings.load` and `nbt train --settings` read it.
    """
    config = record.config
    lines = [f"Settings of the {choice.name}" if choice.is_default else f"Settings of {choice.name}"]
    lines[0] += f", study {config.name}"
    lines.append(f"dataset {config.dataset}, backbone {config.backbone}, weights {config.weights}")
    if choice.final is None:
        accuracy = percent(choice.trial.val_accuracy if choice.trial is not None else None)
        lines.append(f"validation accuracy {accuracy} in one run; the best trial so far, not confirmed by final runs")
    else:
        validation = choice.final.validation
        runs = pluralise(validation.n, "seed")
        interval = runs if validation.low is None else f"95 % interval {format_interval(validation)}, {runs}"
        lines.append(f"validation accuracy {percent(validation.mean)} ({interval})")
        if not choice.is_default:
            lines.append(comparison_to_default(choice.final.versus_default).lstrip(",; "))
    return (
        "".join(f"# {one_line(line)}\n" for line in lines) + record.config.per_task_settings(choice.settings).to_yaml()
    )
