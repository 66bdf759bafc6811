"""The HTML report in Chromium without a network: no error, nothing wider than the window, readable by everyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbt.report.study.write import write_report
from nbt.tuning.storage.records import StudyRecord
from tests.browser import MEASURE, WIDTHS, OpenedPage
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
        opened = OpenedPage(browser, path, width)
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
    opened = OpenedPage(browser, write_report(STUDIES[name], tmp_path), 1280, scheme)
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
    opened = OpenedPage(browser, bad, 360)
    assert "broken" in opened.messages and opened.outside == ["http://example.com/x.png"]
    measured = opened.page.evaluate(MEASURE)
    assert measured["scroll"] > measured["width"] and len(measured["wide"]) == 1
    opened.close()
