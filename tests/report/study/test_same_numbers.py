"""The same numbers in HTML, Markdown, YAML, CSV, JSON, the storage and MLflow."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nbt.api.results import SearchResult
from nbt.report.formatting import percent
from nbt.report.study.write import write_report
from nbt.settings import TransferSettings
from nbt.tracking import sync
from nbt.training.metrics import accuracy
from tests.sample_study import BEST, evaluated_study


def test_all_files_have_the_numbers_of_the_storage(tmp_path: Path) -> None:
    record = evaluated_study(classes=12)
    folder = write_report(record, tmp_path).parent
    result = SearchResult(record, folder / "report.html").to_json()
    page = html.unescape((folder / "report.html").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    text = (folder / "report.md").read_text()
    classes = pd.read_csv(folder / "test_classes.csv")
    confusion = pd.read_csv(folder / "test_confusion.csv", index_col="true class").to_numpy()
    trials = pd.read_csv(folder / "trials.csv").set_index("number")
    predictions, final = record.test_predictions("recommended"), record.final("trial 12")
    assert predictions is not None and final is not None

    # The test accuracy.
    tested = accuracy(predictions)
    assert result["test"]["recommended"]["value"] == pytest.approx(tested)
    assert (classes["recall"] * classes["images"]).sum() / classes["images"].sum() == pytest.approx(tested)
    assert confusion.trace() / confusion.sum() == pytest.approx(tested)
    shown = re.search(r"<dt>Test accuracy</dt><dd class=\"value\">([^<]*)", page)
    assert shown is not None and shown[1] == percent(tested)
    assert f"- Test accuracy: **{percent(tested)}**" in text
    assert f"{confusion.sum() - confusion.trace()} of {confusion.sum()} test images are classified wrongly" in page

    # The result by class and the confusions.
    first = classes.iloc[0]
    for rendered in (page, text):
        assert f"{percent(first['recall'])}" in rendered
    cells = re.findall(r'<td class="(?:right|wrong)"[^>]*>(\d*)', page)
    assert [int(cell or 0) for cell in cells] == confusion.flatten().tolist()

    # The validation of the recommendation, and its settings.
    mean = final.validation.mean
    assert result["validation"]["mean"] == pytest.approx(mean)
    assert f'<dd class="value">{percent(mean)}' in page and f"**{percent(mean)}**" in text
    assert percent(mean) in (folder / "recommended.yaml").read_text()
    assert (
        TransferSettings.load(folder / "recommended.yaml") == BEST == TransferSettings.from_dict(result["recommended"])
    )

    # The trials.
    for trial in record.trials:
        if trial.state == "complete" and not trial.diverged:
            assert trials.loc[trial.number, "val_accuracy"] == trial.val_accuracy
            assert re.search(
                rf"<th scope=\"row\" class=\"n\">{trial.number}</th>.*?{percent(trial.val_accuracy)}", page
            )
            assert re.search(rf"\n\| (\*\*)?{trial.number}(\*\*)? \| .*{percent(trial.val_accuracy)}", text)
    assert result["trials"] == {"complete": 10, "pruned": 7, "failed": 1, "interrupted": 0}
    assert result["epochs"]["spent"] == record.epochs_spent == trials["epochs"].sum()


def test_mlflow_has_the_numbers_of_the_files(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    record = evaluated_study(classes=12)
    record = replace(record, finals=tuple(replace(final, runs=final.runs[:1]) for final in record.finals))
    folder = write_report(record, tmp_path).parent
    result = SearchResult(record, folder / "report.html").to_json()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sync(record, uri, reports=tmp_path)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("nbt cub")
    assert experiment is not None
    runs = {run.data.tags["nbt.key"]: run.data for run in client.search_runs([experiment.experiment_id])}

    # The results of the study.
    logged = runs["study"].metrics
    for prefix, name in (("test", "recommended"), ("test_baseline", "baseline"), ("test_majority", "majority")):
        for metric, value in result["test"][name]["metrics"].items():
            assert logged[f"{prefix}_{metric}"] == pytest.approx(value["value"]), (name, metric)
            for bound in ("low", "high"):
                assert logged[f"{prefix}_{metric}_{bound}"] == pytest.approx(value[bound]), (name, metric)
    page = html.unescape((folder / "report.html").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert f'<dd class="value">{percent(logged["test_accuracy"])}</dd>' in page
    assert f'<dd class="value">{percent(logged["final_val_accuracy"])}</dd>' in page
    assert logged["final_val_accuracy"] == pytest.approx(result["validation"]["mean"])
    assert logged["epochs_spent"] == record.epochs_spent == result["epochs"]["spent"]
    classes = pd.read_csv(folder / "test_classes.csv")
    right = (classes["recall"] * classes["images"]).sum() / classes["images"].sum()
    assert logged["test_accuracy"] == pytest.approx(right)

    # The recommended settings: the YAML file, and the run of the trial that has them.
    settings = TransferSettings.load(folder / "recommended.yaml")
    assert TransferSettings.from_dict(json.loads(runs["trial-0012"].tags["settings"])) == settings
    assert runs["trial-0012"].tags["recommended"] == "yes"
    assert runs["study"].tags["recommended"] == record.recommended == "trial 12"

    # The trials.
    trials = pd.read_csv(folder / "trials.csv").set_index("number")
    assert len(trials) == len(record.trials) == sum(key.startswith("trial-") for key in runs)
    for trial in record.trials:
        if trial.state == "complete" and not trial.diverged:
            data = runs[f"trial-{trial.number:04d}"]
            assert data.metrics["value"] == pytest.approx(trials.loc[trial.number, "val_accuracy"])
            assert f"{100 * data.metrics['value']:.1f} %" in page


def test_the_page_is_small_whatever_the_number_of_classes(tmp_path: Path) -> None:
    path = write_report(evaluated_study(classes=400, images=4000), tmp_path)
    assert path.stat().st_size < 1_000_000
