import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nbt.report.study.cards.card import StudyView
from nbt.report.study.cards.recipe import Recipe
from nbt.report.study.cards.registry import CARDS
from nbt.report.study.render import render_html, render_markdown
from nbt.report.study.report_data import build_report
from nbt.report.templating import escape_markdown, fenced
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.report.study.backbone_study import backbone_study
from tests.sample_study import (
    evaluated_study,
    finals,
    forecast,
    sample_study,
    source,
    trial,
    with_config,
)

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> `x` |a|b| *c* [d](http://e)'
VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Collects tags, attributes and text of a page, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split()).replace("\N{NO-BREAK SPACE}", " ")


def html(record: StudyRecord, *, has_model: bool = False) -> str:
    return render_html(build_report(record, Path("reports/x"), has_model=has_model))


def markdown(record: StudyRecord, *, has_model: bool = False) -> str:
    return render_markdown(build_report(record, Path("reports/x"), has_model=has_model))


def test_both_reports_contain_the_same_facts() -> None:
    page, text = Page(html(sample_study())).text, markdown(sample_study())
    for fact in (
        "4.5 points better than the default recipe (95 % interval +4.1 to +4.9)",
        "69.5 % test accuracy (95 % interval 66.8–72.1 %, 1174 images)",  # noqa: RUF001 - a range
        "evaluated once, after the final selection",
        "the cost of 14 trials of the default recipe",
        "10.8 of 14 trials (77 %)",
        "selected among 10 full-length trials",
        "worse than trial 12 after 3 seeds",
        "rank 5 of 6 after 4 epochs",
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB",
        "1 image could not be read and was left out: birds/broken.jpg (truncated)",
        "a hint, not a finding",
        "--settings reports/x/recommended.yaml",
    ):
        assert fact in page, fact
        assert fact in text, fact


def test_cards_stand_in_the_same_order_in_both_reports() -> None:
    titles = [card.title for card in CARDS]
    record = backbone_study()  # it has every card
    page = Page(html(record))
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert [name for name in ids if name in {card.name for card in CARDS}] == [card.name for card in CARDS]
    headings = re.findall(r"^#{2,3} (.*)$", markdown(record), flags=re.M)
    assert [title for title in headings if title != "Appendix"] == titles


def test_a_broken_card_breaks_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Recipe, study: StudyView) -> None:
        raise ValueError("a <b>")

    monkeypatch.setattr(Recipe, "content", broken)
    for text in (Page(html(sample_study())).text, markdown(sample_study()).replace("\\", "")):
        assert "This card could not be made: a <b>." in text
        assert "69.5 % test accuracy" in text and "nbt train" in text


def test_page_is_self_contained() -> None:
    text = html(sample_study())
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "embed", "img", "image")
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), f"{tag} {name}={value}"
    assert "url(http" not in text
    assert "@import" not in text
    policy = next(a["content"] for t, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_page_contains_drawings() -> None:
    labels = [a.get("aria-label") for tag, a in Page(html(sample_study())).tags if tag == "svg"]
    assert labels == [
        "Finalists with their intervals",
        "Best validation accuracy against the cost of the trials",
        "Learning curves of the trials",
        "Validation accuracy against training time",
        "Importance of the settings",
    ]


def test_a_reader_without_a_mouse_finds_all() -> None:
    page = Page(html(evaluated_study(profile=profile_dict())))
    assert next(a for tag, a in page.tags if tag == "a") == {"class": "skip", "href": "#answer"}
    for tag, attributes in page.tags:
        if "scroll" in (attributes.get("class") or "").split():
            assert attributes.get("tabindex") == "0" and attributes.get("aria-label")
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if tag == "svg":
            assert attributes.get("role") == "img" and attributes.get("aria-label")
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) == tables > 8


def test_hostile_text_is_escaped() -> None:
    hostile = {"device": HOSTILE, "node": HOSTILE, "gpu_index": HOSTILE, "gpu": HOSTILE}
    hostile["lost_workers"] = [{"node": HOSTILE, "reason": HOSTILE}]  # type: ignore[assignment]
    failed = trial(3, "failed", reason=HOSTILE, origin=HOSTILE, facts={"traceback": HOSTILE, **hostile})
    last_forecast = forecast(0.5, last=4, would_stop=4)
    stopped = trial(6, "pruned", reason=HOSTILE, facts={"forecast": last_forecast})
    diagnostics = {
        "sources": [source(HOSTILE, 0.3, 0.6)],
        "silent": [{"name": HOSTILE, "reason": HOSTILE}],
        "tables": [HOSTILE],
    }
    record = sample_study(
        trials=(*sample_study().trials[:3], failed, stopped),
        prior_diagnostics=diagnostics,
        pruner=HOSTILE,
        notes=(HOSTILE,),
        importance={HOSTILE: 1.0},
        verdict=HOSTILE,
        finals=(finals()[0], finals()[1].__class__(**{**vars(finals()[1]), "dropped": HOSTILE})),
    )
    record = with_config(record, name=HOSTILE, dataset=HOSTILE, backbone=HOSTILE, space=HOSTILE, weights=HOSTILE)
    page = Page(html(record))
    assert HOSTILE in " ".join(page.words)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    text = markdown(record)
    outside = re.sub(r"^(`{3,})\n.*?^\1\n", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<(script|img)", outside)
    assert not re.search(r"(?<!\\)\]\(http", outside)


def test_tables_in_markdown_keep_their_columns() -> None:
    stopped = trial(1, "pruned", reason="c | d", facts={"forecast": forecast(0.5, last=2, would_stop=2)})
    listed = (trial(0, "failed", reason="a | b\nc", origin="x|y"), stopped)
    diagnostics = {"sources": [source("a | b", 0.1, 0.2)]}
    record = sample_study(trials=listed, prior_diagnostics=diagnostics)
    lines = markdown(record).splitlines()
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("|"):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    tables = [block for block in blocks if block]
    assert len(tables) > 8
    for table in tables:
        assert set(table[1]) <= set("|-: ")
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table}
        assert len(columns) == 1, table


def test_markdown_escapes_markup() -> None:
    assert escape_markdown("a|b `c` *d* <e> [f] \\") == "a\\|b \\`c\\` \\*d\\* \\<e\\> \\[f\\] \\\\"
    assert escape_markdown("val_accuracy _x_") == "val_accuracy \\_x\\_"
    assert escape_markdown("a\n# b & c") == "a # b &amp; c"
    assert escape_markdown(3) == 3


def test_fences_are_longer_than_those_inside() -> None:
    assert fenced("a") == "```\na\n```"
    assert fenced("a\n```\nb") == "````\na\n```\nb\n````"
