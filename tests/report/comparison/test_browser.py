"""The comparison page in Chromium without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbt.report.comparison.content import compare_studies
from nbt.report.comparison.write import write_comparison
from tests.browser import MEASURE, WIDTHS, OpenedPage
from tests.report.comparison.comparisons import study, with_search

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    long = "a-long-name-" * 8
    records = [study("a"), with_search(study(long, 0.79), final_seeds=7), study("c", 0.6)]
    return write_comparison(compare_studies(records), tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_and_loads(browser: Any, page: Path, width: int) -> None:
    opened = OpenedPage(browser, page, width)
    measured = opened.page.evaluate(MEASURE)
    assert measured["scroll"] <= measured["width"] == width, measured["wide"][:5]
    assert measured["wide"] == []
    assert opened.messages == [] and opened.outside == []
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_serious_finding(browser: Any, axe: str, page: Path, scheme: str) -> None:
    opened = OpenedPage(browser, page, 1280, scheme)
    opened.page.evaluate(axe)
    found = opened.page.evaluate("async () => (await axe.run()).violations")
    opened.close()
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    assert serious == [], [(item["id"], [node["html"][:120] for node in item["nodes"][:3]]) for item in serious]
