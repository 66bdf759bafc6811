"""The frame: cards that show, have nothing to show, or raise."""

import logging

import pytest
from jinja2 import TemplateNotFound

from nbt.report.formatting import TemplateData
from nbt.report.study.cards.answer import Answer
from nbt.report.study.cards.card import FAILED, NOT_APPLICABLE, SHOWN, Card, NotApplicable, StudyView, make_cards
from nbt.report.study.cards.registry import CARDS
from nbt.report.templating import environment
from tests.report.study.cards.views import view
from tests.sample_study import empty_study, sample_study


class Raises(Card):
    name, title = "answer", "Broken"

    def content(self, study: StudyView) -> TemplateData:
        raise RuntimeError("no <disk>")


class MissesData(Card):
    name, title = "answer", "Wrong data"

    def content(self, study: StudyView) -> TemplateData:
        return TemplateData(headline="x")


class Silent(Card):
    name, title = "answer", "Silent"

    def content(self, study: StudyView) -> NotApplicable:
        return NotApplicable("there is <nothing>")


def test_an_error_stands_in_the_place_of_its_card_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nbt"):
        broken, answer = make_cards([Raises(), Answer()], view(sample_study()))
    assert (broken.state, broken.reason, answer.state) == (FAILED, "no <disk>", SHOWN)
    assert "the report's card 'Broken' could not be made: no <disk>" in caplog.text
    assert "no &lt;disk&gt;" in broken.render("html")
    assert "no \\<disk\\>" in broken.render("md")
    assert "Use the settings of trial 12" in answer.render("html")


def test_an_error_of_a_template_stands_in_the_place_of_its_card(caplog: pytest.LogCaptureFixture) -> None:
    [made] = make_cards([MissesData()], view(sample_study()))
    assert made.state == SHOWN
    for kind in ("html", "md"):
        assert "This card could not be made" in made.render(kind)
    assert "Wrong data" in caplog.text


def test_a_card_without_content_says_why() -> None:
    [made] = make_cards([Silent()], view(sample_study()))
    assert (made.state, made.content) == (NOT_APPLICABLE, None)
    assert "Not applicable because there is &lt;nothing&gt;." in made.render("html")
    assert "Not applicable because there is \\<nothing\\>." in made.render("md")


def test_every_card_has_both_templates_and_its_own_name() -> None:
    assert len({card.name for card in CARDS}) == len({card.title for card in CARDS}) == len(CARDS)
    for card in CARDS:
        for kind in ("html", "md"):
            try:
                environment(kind).get_template(f"cards/{card.name}.{kind}.j2")
            except TemplateNotFound:
                pytest.fail(f"{card.name} has no {kind} template")


@pytest.mark.parametrize("record", [sample_study(), empty_study()], ids=["full", "empty"])
def test_no_card_fails(record: object) -> None:
    for made in make_cards(CARDS, view(record)):  # type: ignore[arg-type]
        for kind in ("html", "md"):
            assert "could not be made" not in made.render(kind), made.card.name


def test_folded_cards_come_last() -> None:
    assert [card.is_folded for card in CARDS] == sorted(card.is_folded for card in CARDS)
