"""The HTML report in Chromium without a network: no error, nothing wider than the window, readable by everyone."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbt.report.study.write import write_report
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import (
    empty_study,
    evaluated_study,
    forecast,
    sample_study,
    source,
    spread_study,
    study_with_priors,
    trial,
    unfinished_study,
    with_config,
)

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = (360, 800, 1280)

# Elements beyond the window, except in tables that scroll, and the smallest letters of the drawings in pixels.
MEASURE = """() => {
  const width = document.documentElement.clientWidth;
  const wide = [...document.body.querySelectorAll("*")].filter(e => !e.closest(".scroll, .hidden, .skip")
    && e.getClientRects().length && e.getBoundingClientRect().right > width + 1);
  const letters = [...document.querySelectorAll("svg text")].filter(e => e.getClientRects().length).map(e => {
    const svg = e.closest("svg");
    return parseFloat(getComputedStyle(e).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width;
  });
  return {scroll: document.documentElement.scrollWidth, width, wide: wide.map(e => e.outerHTML.slice(0, 80)),
          letters: Math.min(...letters, 99)};
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("needs a headless browser: none of " + ", ".join(BROWSERS) + " is installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the script of axe-core from npm."""
    folder, npm = tmp_path_factory.mktemp("axe"), shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm for axe-core")
    command = [npm, "pack", "axe-core@4", "--silent"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if result.returncode:
        pytest.skip("npm cannot fetch axe-core")
    with tarfile.open(folder / result.stdout.split()[-1]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


class Page:
    """A page that was opened without a network, with what it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True, bypass_csp=False
        )
        self.page = context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    @property
    def outside(self) -> list[str]:
        """Requests for anything but the page itself and its embedded images."""
        return [url for url in self.requests if not url.startswith(("file:", "data:"))]

    def close(self) -> None:
        self.page.context.close()


def hostile() -> StudyRecord:
    name = "W" * 300 + "<script>console.error('x')</script>"
    listed = [trial(i, "failed", reason=f"/very/long/{'path' * 60}/{i}", origin=name) for i in range(30)]
    listed.append(trial(30, "pruned", reason=name, facts={"forecast": forecast(0.5, last=2, would_stop=2)}))
    far = {"node": name, "gpu_index": name, "gpu": name, "device": "cuda:0"}
    listed.append(trial(31, facts={**far, "lost_workers": [{"node": name, "reason": name}]}))
    diagnostics = {"sources": [source(name, 0.1, 0.2)], "silent": [{"name": name, "reason": name}], "tables": [name]}
    changes = {"notes": (name,), "importance": {name: 1.0}, "trials": tuple(listed), "prior_diagnostics": diagnostics}
    record = sample_study(**changes, finals=(), recommended=None)
    return with_config(record, name="long", dataset=name, backbone=name)


STUDIES = {
    "full": evaluated_study(classes=12, profile=profile_dict()),
    "unfinished": unfinished_study(),
    "empty": empty_study(),
    "priors": study_with_priors(profile=profile_dict()),
    "several-locations": spread_study(),
    "hostile": hostile(),
}


@pytest.mark.parametrize("name", STUDIES)
def test_page_fits_and_loads_at_all_widths(browser: Any, name: str, tmp_path: Path) -> None:
    path = write_report(STUDIES[name], tmp_path)
    for width in WIDTHS:
        opened = Page(browser, path, width)
        for details in (False, True):
            opened.page.evaluate("open => document.querySelectorAll('details').forEach(d => d.open = open)", details)
            measured = opened.page.evaluate(MEASURE)
            assert measured["scroll"] <= measured["width"] == width, (width, measured["wide"][:5])
            assert measured["wide"] == [], width
            assert measured["letters"] >= 8.5
        assert opened.messages == [] and opened.outside == []
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["full", "priors", "unfinished"])
def test_axe_has_no_serious_finding(browser: Any, axe: str, name: str, scheme: str, tmp_path: Path) -> None:
    opened = Page(browser, write_report(STUDIES[name], tmp_path), 1280, scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.page.evaluate(axe)
    found = opened.page.evaluate("async () => (await axe.run()).violations")
    opened.close()
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    assert serious == [], [(item["id"], [node["html"][:120] for node in item["nodes"][:3]]) for item in serious]


def test_browser_checks_detect_errors(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><p>x<div style='width: 900px'>wide</div>"
        "<script>console.error('broken')</script><img src='http://example.com/x.png'>"
    )
    opened = Page(browser, bad, 360)
    assert "broken" in opened.messages and opened.outside == ["http://example.com/x.png"]
    measured = opened.page.evaluate(MEASURE)
    assert measured["scroll"] > measured["width"] and len(measured["wide"]) == 1
    opened.close()
