"""Files of a study's report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbt.metrics import METRICS
from nbt.report.files import report_folder, write_report_files
from nbt.report.formatting import one_line, pluralise, score_interval, score_text
from nbt.report.study.headline import comparison_to_default, reference_of
from nbt.report.study.recommendation import StudyRecommendation, current_recommendation
from nbt.report.study.render import render_html, render_markdown
from nbt.report.study.report_data import build_report
from nbt.report.study.reproduce import train_command
from nbt.report.study.test_section import classes_frame, confusion_frame
from nbt.report.study.trials_frame import trials_frame
from nbt.training.export.model_folder import was_trained_with
from nbt.tuning.baseline_recipes import is_from_scratch
from nbt.tuning.storage.records import FinalRecord, StudyRecord

SETTINGS_FILE = "recommended.yaml"
FIT_FILE = "fit.json"
CLASSES_FILE = "test_classes.csv"
CONFUSION_FILE = "test_confusion.csv"
FILES = ("report.md", SETTINGS_FILE, "trials.csv", FIT_FILE, CLASSES_FILE, CONFUSION_FILE, "report.html")
"""Files that `write_report` writes, in order; other files in the folder, such as `model/`, are not touched."""


def write_report(record: StudyRecord, out: str | Path) -> Path:
    """Writes the report of a study, finished or not, to its folder in `out`.

    The files are `report.html`, `report.md`, `trials.csv`, `fit.json` if the study has a fit profile,
    `recommended.yaml` if there is a full-length trial, and `test_classes.csv` and `test_confusion.csv` if the
    predictions of the test images are stored. All texts are created before the first file is written. Each
    file is written under a temporary name and renamed; `report.html`, which refers to the others, comes last.

    Args:
        record: The study.
        out: Folder of reports.

    Returns:
        The path of `report.html`.

    Raises:
        NbtError: The folder cannot be written.
    """
    folder = report_folder(out, record.config.name)
    classes, confusion = classes_frame(record), confusion_frame(record)
    data = build_report(record, folder, has_model=_has_model(record, folder))
    texts = {
        "report.md": render_markdown(data),
        SETTINGS_FILE: None if data.recommendation is None else settings_file(record, data.recommendation),
        FIT_FILE: None if record.profile is None else fit_file(record.profile),
        "trials.csv": trials_frame(record).to_csv(index=False, lineterminator="\n"),
        CLASSES_FILE: None if classes is None else classes.to_csv(index=False, lineterminator="\n"),
        CONFUSION_FILE: None if confusion is None else confusion.to_csv(lineterminator="\n"),
        "report.html": render_html(data),
    }
    write_report_files(folder, {name: texts[name] for name in FILES})
    return folder / "report.html"


def _has_model(record: StudyRecord, folder: Path) -> bool:
    """Returns whether the folder contains the model of the current recommendation.

    The model is exported with the test evaluation. Without one, a model in the folder belongs to an earlier
    recommendation or another study, whatever its settings are.
    """
    recommendation = current_recommendation(record)
    tested = any(test.name == "recommended" for test in record.test)
    return tested and recommendation is not None and was_trained_with(folder / "model", recommendation.settings)


def fit_file(profile: Mapping[str, Any]) -> str:
    """Returns the content of `fit.json`, see `nbt.fit.FitProfile.from_json`."""
    return json.dumps(profile, indent=2) + "\n"


def _comparison(record: StudyRecord, final: FinalRecord) -> str:
    return comparison_to_default(final.versus_default, *reference_of(record, final)).lstrip(",; ")


def settings_file(record: StudyRecord, recommendation: StudyRecommendation) -> str:
    """Returns the content of `recommended.yaml`: comments on the origin of the settings, then the settings.

    `TransferSettings.load` and `nbt train --settings` read it.
    """
    config, metric = record.config, METRICS[record.config.metric]
    article = "the " if recommendation.is_default else ""
    lines = [f"Settings of {article}{recommendation.name}, study {config.name}"]
    chosen = config.with_backbone_of(recommendation.settings)
    weights = f"weights {chosen.weights}"
    if is_from_scratch(recommendation.settings) and chosen.weights != "none":
        weights = f"random weights: nothing of the {weights} is transferred"
    lines.append(f"dataset {config.dataset}, backbone {chosen.backbone}, {weights}")
    if config.scenario is None:
        lines.append(f"train a model with them: {train_command(record, Path(SETTINGS_FILE))}")
    if recommendation.final is None:
        trial = recommendation.trial
        value = score_text(None if trial is None else trial.score(metric.name), metric)
        lines.append(f"validation {metric.label} {value} in one run; best trial so far, not confirmed by final runs")
    else:
        validation = recommendation.final.validation
        runs = pluralise(validation.n, "seed")
        interval = runs if validation.low is None else f"95 % interval {score_interval(validation, metric)}, {runs}"
        lines.append(f"validation {metric.label} {score_text(validation.mean, metric)} ({interval})")
        if not recommendation.is_default:
            lines.append(_comparison(record, recommendation.final))
    comments = "".join(f"# {one_line(line)}\n" for line in lines)
    return comments + config.per_task_settings(recommendation.settings).to_yaml()
