"""The HTML report in a real browser without a network: everything loads, and nothing is wider than the window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nbt.report.study.write import write_report
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import (
    empty_study,
    forecast,
    sample_study,
    source,
    spread_study,
    study_with_priors,
    trial,
    unfinished_study,
    with_config,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE, DESKTOP = 390, 1280

# One frame per tested width; a script outside the page measures the rendered page.
HARNESS = """<!doctype html><meta charset="utf-8"><body>
{frames}
<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement, width = root.clientWidth;
    const inside = element => element.closest(".scroll") !== null;
    const wide = [...page.body.querySelectorAll("*")].filter(
      e => !inside(e) && e.getClientRects().length && e.getBoundingClientRect().right > width + 1);
    const letters = [...page.querySelectorAll("svg text")].map(e => {{
      const svg = e.closest("svg");
      return parseFloat(getComputedStyle(e).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width;
    }});
    return {{
      width, scroll: root.scrollWidth, wide: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 80)),
      letters: letters.length ? Math.min(...letters) : null,
      drawings: [...page.querySelectorAll("svg")].map(e => e.clientWidth),
      headline: page.querySelector(".headline") ? page.querySelector(".headline").innerText : "",
    }};
  }});
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}});
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("needs a headless browser: none of " + ", ".join(BROWSERS) + " is installed")
    return found


def run(browser: str, page: Path, profile: Path, *options: str) -> tuple[str, list[str]]:
    """Opens a page without a network and returns its document and the messages of its console."""
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return result.stdout, re.findall(r"CONSOLE[:(][^\n]*", result.stderr)


def measure(browser: str, text: str, folder: Path) -> list[dict[str, Any]]:
    """Returns measurements of a page at the widths of a phone and of a desktop."""
    frames = "\n".join(
        f'<iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{html.escape(text)}"></iframe>'
        for width in (PHONE, DESKTOP)
    )
    (folder / "harness.html").write_text(HARNESS.format(frames=frames), encoding="utf-8")
    document, console = run(browser, folder / "harness.html", folder / "profile", "--window-size=1400,1000")
    assert console == []
    found = re.search(r'<pre id="found">(.*?)</pre>', document, flags=re.S)
    assert found is not None, document[-500:]
    measured = json.loads(html.unescape(found[1]))
    assert isinstance(measured, list)
    return measured


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


@pytest.mark.parametrize(
    "record",
    [
        sample_study(),
        unfinished_study(),
        empty_study(),
        study_with_priors(profile=profile_dict()),
        spread_study(),
        hostile(),
    ],
    ids=["full", "unfinished", "empty", "priors", "several-locations", "hostile"],
)
def test_page_fits_and_loads_on_phone_and_desktop(browser: str, record: StudyRecord, tmp_path: Path) -> None:
    path = write_report(record, tmp_path / "reports")
    text = path.read_text(encoding="utf-8")
    document, console = run(browser, path, tmp_path / "profile")
    assert console == []
    assert "</footer>" in document
    for measured, width in zip(measure(browser, text, tmp_path), (PHONE, DESKTOP), strict=True):
        assert measured["scroll"] <= measured["width"], measured["wide"]
        assert measured["width"] >= width - 20
        assert measured["wide"] == []
        assert measured["headline"]
        assert measured["letters"] is None or measured["letters"] >= 8.5
        assert all(drawn >= 300 for drawn in measured["drawings"])


def test_browser_check_detects_errors(browser: str, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<!doctype html><p class='headline'>x<div style='width: 900px'>wide</div>"
        "<script>console.error('broken')</script><img src='http://example.com/x.png'>"
    )
    _, console = run(browser, tmp_path / "bad.html", tmp_path / "profile")
    assert any("broken" in line for line in console)
    quiet = "<!doctype html><p class='headline'>x<div style='width: 900px'>wide</div>"
    phone, desktop = measure(browser, quiet, tmp_path)
    assert phone["scroll"] > phone["width"]
    assert len(phone["wide"]) == 1
    assert desktop["scroll"] <= desktop["width"]
