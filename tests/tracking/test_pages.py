"""MLflow's pages as `nbt ui` serves them: the process, and the pages in a real browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from nbt.errors import UsageError
from nbt.report.study.write import write_report
from nbt.tracking import sync
from nbt.tracking.pages import bind_port, check_pages, is_local_host, stored_defaults, with_defaults
from tests.chromium import Chromium, find_browser
from tests.sample_study import finals, sample_study

PATIENCE = 180.0


def test_servers_and_missing_files_have_no_pages_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="browser"):
        check_pages("http://host:5000")
    with pytest.raises(UsageError, match="nbt search writes them"):
        check_pages(f"sqlite:///{tmp_path / 'none.db'}")


def test_the_port_is_bound_on_this_machine_only() -> None:
    with bind_port(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        listener.listen()
        with pytest.raises(UsageError, match=f"--port {port} cannot be used \\(it is in use\\)"):
            bind_port(port)


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost:8080", "LOCALHOST", "[::1]:5000"])
def test_requests_for_this_machine_are_answered(host: str) -> None:
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:5000", "127.0.0.1.evil.example", "evil@x", "[::1", "10.0.0.7:5000"]
)
def test_requests_for_other_hosts_are_not(host: str) -> None:
    assert not is_local_host(host)


def test_the_start_page_stores_the_mode_and_the_columns_of_own_experiments() -> None:
    stored = stored_defaults({"1": "nbt cub", "2": "another's"})
    assert stored["mlflow.workflowType_v1"] == '"machine_learning"'
    [columns] = [value for key, value in stored.items() if "ExperimentPage" in key]
    assert "metrics.`test_accuracy`" in json.loads(columns)["selectedColumns"]
    page = with_defaults("<html><head><title>x</title>", {"k": "</script><script>alert(1)"})
    assert page.startswith("<html><head><script>")
    assert page.count("</script>") == 1


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a store with the runs of a small study."""
    folder = tmp_path_factory.mktemp("pages")
    study = sample_study()
    trials = tuple(trial for trial in study.trials if trial.number in (0, 4, 12))
    runs = tuple(replace(final, runs=final.runs[:1]) for final in finals()[:2])
    record = replace(study, trials=trials, finals=runs)
    write_report(record, folder / "reports")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    sync(record, uri, reports=folder / "reports")
    return uri


@contextmanager
def served(uri: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yields the process of `nbt ui` and the address that it printed."""
    with bind_port(0) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "nbt", "ui", "--tracking-uri", uri, "--port", port]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        yield process, process.stderr.readline().split()[0]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def pages(uri: str) -> Iterator[str]:
    """Returns the address of MLflow's pages."""
    with served(uri) as (_, url):
        yield url


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.slow
def test_the_address_is_printed_when_the_page_answers_and_ctrl_c_ends_everything(uri: str) -> None:
    with served(uri) as (process, url):
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert b"machine_learning" in answer.read()
        for path in ("", "/api/2.0/mlflow/experiments/search"):
            rebound = urllib.request.Request(url + path, headers={"Host": "evil.example"})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(rebound, timeout=PATIENCE)
        assert children(process.pid) == []
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (130, "", "\ninterrupted\n")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = find_browser()
    if browser is None:
        pytest.skip("needs a headless browser, such as Debian's chromium")
    with Chromium(browser, tmp_path_factory.mktemp("profile"), timeout=PATIENCE) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def runs(uri: str) -> dict[str, Any]:
    """Returns the runs by key."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("nbt cub")
    return {run.data.tags["nbt.key"]: run for run in client.search_runs([experiment.experiment_id])}


def screenshot(page: Chromium, name: str) -> None:
    """Keeps a picture of the page in the folder that NBT_SCREENSHOTS names, if it is set."""
    folder = os.environ.get("NBT_SCREENSHOTS")
    if folder:
        page.screenshot(Path(folder) / f"{name}.png")


@pytest.mark.browser
@pytest.mark.slow
def test_runs_are_shown_for_model_training_with_folded_trials(page: Chromium, pages: str, runs: dict[str, Any]) -> None:
    page.open(f"{pages}/#/experiments/{runs['study'].info.experiment_id}")
    page.wait_for_text("matching runs")
    page.wait_for_text("test_accuracy")
    text = page.text()
    assert "Evaluation runs" not in text, "the pages for language models"
    assert "0.695" in text, "the test accuracy"
    assert "012 depth" not in text, "trials are folded"
    screenshot(page, "runs")
    assert page.errors == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_study_has_its_report_and_no_chart_of_a_fit_measure(page: Chromium, pages: str, runs: dict[str, Any]) -> None:
    info = runs["study"].info
    page.open(f"{pages}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts")
    page.wait_for_text("report.html")
    page.wait_for_text("recommended.yaml")
    screenshot(page, "artifacts")
    page.open(f"{pages}/#/experiments/{info.experiment_id}/runs/{info.run_id}/model-metrics")
    page.wait_for_text("best_val_accuracy")
    assert "fit/" not in page.text()
    screenshot(page, "metrics")
    assert page.errors == []


_EXPANDER = "[data-component-id$='runnamecellrenderer.tsx_46']"


@pytest.mark.browser
@pytest.mark.slow
def test_trials_are_nested_in_their_study(page: Chromium, pages: str, runs: dict[str, Any]) -> None:
    page.open(f"{pages}/#/experiments/{runs['study'].info.experiment_id}")
    page.click(_EXPANDER)
    page.wait_for_text("012 depth")
    page.wait_for_text("000 depth")
    screenshot(page, "nested")
    assert page.errors == []


@pytest.mark.browser
@pytest.mark.slow
def test_trials_are_compared_with_parallel_coordinates(page: Chromium, pages: str, runs: dict[str, Any]) -> None:
    trials = [runs[key].info for key in ("trial-0000", "trial-0012")]
    listed = quote(json.dumps([info.run_id for info in trials]))
    page.open(f"{pages}/#/compare-runs?runs={listed}&experiments={quote(json.dumps([trials[0].experiment_id]))}")
    page.wait_for_text("Parallel Coordinates Plot")
    page.wait_for_text("transfer_depth")
    page.wait_for_text("0.712")
    page.wait_for("document.querySelector('.js-plotly-plot .parcoords') !== null")
    screenshot(page, "comparison")
    assert page.errors == []
