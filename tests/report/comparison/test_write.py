from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

from nbt.report.comparison.content import compare_studies
from nbt.report.comparison.write import comparison_name, draw_test_intervals, write_comparison
from tests.report.comparison.comparisons import comparison, study
from tests.sample_study import unfinished_study, with_config


def test_page_and_text_have_the_same_numbers(tmp_path: Path) -> None:
    found = comparison()
    path = write_comparison(found, tmp_path)
    assert path == tmp_path / "a+b" / "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.md"]
    page = html.unescape(path.read_text()).replace("\N{NO-BREAK SPACE}", " ")
    text = path.with_name("report.md").read_text()
    for shown in (*found.sentences, "79.0 %", "69.5 %", "10 min 12 s"):
        assert shown in page and shown in text, shown
    numbers = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert "+9.5" in numbers and "| +9.5 |" in text
    assert "src=" not in page and "<script" not in page


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    name = "<b>|x</b>"
    found = compare_studies([study("a", dataset=name), study("b", dataset=name)])
    path = write_comparison(found, tmp_path)
    assert "<b>" not in path.read_text()
    assert "\\<b\\>\\|x" in path.with_name("report.md").read_text()


def test_the_folder_is_named_after_the_studies() -> None:
    assert comparison_name(["a", "b", "c"]) == "a+b+c"
    long = [letter * 100 for letter in "abc"]
    assert comparison_name(long) != comparison_name([*long[:2], "d" * 100])
    assert len(comparison_name(long)) < 200


def test_the_drawing_has_a_row_per_tested_study() -> None:
    drawing = draw_test_intervals(comparison())
    assert drawing is not None
    texts = re.findall(r">([^<>]+)</text>", drawing)
    assert {"a", "b", "recommended", "default recipe"} <= set(texts)
    untested = [with_config(unfinished_study(), name=name, content_hash="5ea") for name in "ab"]
    assert draw_test_intervals(compare_studies(untested)) is None
    partly = compare_studies([untested[0], replace(study("b"))])
    assert "a" not in re.findall(r">([^<>]+)</text>", str(draw_test_intervals(partly)))
