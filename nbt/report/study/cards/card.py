"""The frame of a report's cards: what a card is, what it reads and returns, and how cards are made and rendered."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from nbt.checks import CheckResult
from nbt.errors import NbtError, one_line_message
from nbt.metrics import METRICS, Metric
from nbt.report.formatting import TemplateData
from nbt.report.study.checks.registry import study_checks
from nbt.report.study.dataset_images import DatasetImages, read_dataset_images
from nbt.report.study.recommendation import StudyRecommendation, current_recommendation
from nbt.report.templating import environment
from nbt.tuning.finals.test_results import TestResults, test_results
from nbt.tuning.storage.records import StudyRecord

_log = logging.getLogger("nbt")

SHOWN, NOT_APPLICABLE, FAILED = STATES = ("shown", "not_applicable", "failed")
"""States of a made card."""


@dataclass(frozen=True)
class NotApplicable:
    """What a card returns that has nothing to show.

    Attributes:
        reason: Clause that completes "not applicable because ...".
    """

    reason: str


@dataclass(frozen=True, eq=False)
class StudyView:
    """What the cards of a report read; each derived value is computed once.

    Attributes:
        record: The study, finished or not.
        folder: Folder of the report, as it appears in commands.
        has_model: Whether the folder contains the model of the recommendation.
    """

    record: StudyRecord
    folder: Path
    has_model: bool = False

    @property
    def metric(self) -> Metric:
        """The metric of the study."""
        return METRICS[self.record.config.metric]

    @cached_property
    def recommendation(self) -> StudyRecommendation | None:
        """The recommended settings; None without a full-length trial."""
        return current_recommendation(self.record)

    @cached_property
    def test(self) -> TestResults | None:
        """The results on the test images; None before the test evaluation."""
        return test_results(self.record)

    @cached_property
    def images(self) -> DatasetImages | NotApplicable:
        """The images of the dataset, or why they cannot be read."""
        try:
            return read_dataset_images(self.record)
        except NbtError as error:
            return NotApplicable(str(error))

    @cached_property
    def checks(self) -> tuple[CheckResult, ...]:
        """The results of the checks of data and result, failed ones first."""
        return study_checks(self.record)


class Card(ABC):
    """A part of a report, with the templates `cards/NAME.html.j2` and `cards/NAME.md.j2`."""

    name: ClassVar[str]
    title: ClassVar[str]
    style: ClassVar[str] = ""
    """Classes of the style sheet: "half" for half of a wide window."""
    is_folded: ClassVar[bool] = False
    """Whether the card stands, folded, in the appendix."""

    def is_shown(self, record: StudyRecord) -> bool:
        """Returns whether reports of a study contain the card at all."""
        return True

    @abstractmethod
    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the data of the templates, or why the card has nothing to show."""


@dataclass(frozen=True, eq=False)
class MadeCard:
    """A card of a study.

    Attributes:
        card: The card.
        state: One of `STATES`.
        content: Data of the templates; None unless the card is shown.
        reason: Why it is not shown, else "".
    """

    card: Card
    state: str
    content: TemplateData | None = None
    reason: str = ""

    def render(self, kind: str) -> Markup:
        """Returns the card in the format "html" or "md", or why it is not shown."""
        if self.state == SHOWN:
            try:
                template = environment(kind).get_template(f"cards/{self.card.name}.{kind}.j2")
                return Markup(template.render(card=self.content).strip())
            except Exception as error:
                return _failed(self.card, error).render(kind)
        template = environment(kind).get_template(f"not_shown.{kind}.j2")
        return Markup(template.render(reason=self.reason, has_failed=self.state == FAILED).strip())


def make_cards(cards: Iterable[Card], study: StudyView) -> tuple[MadeCard, ...]:
    """Returns the cards of a study.

    A card that raises is shown with its error in its place, because no card may prevent a report.
    """
    return tuple(_make(card, study) for card in cards)


def _make(card: Card, study: StudyView) -> MadeCard:
    try:
        content = card.content(study)
    except Exception as error:
        return _failed(card, error)
    if isinstance(content, NotApplicable):
        return MadeCard(card, NOT_APPLICABLE, reason=content.reason)
    return MadeCard(card, SHOWN, content)


def _failed(card: Card, error: Exception) -> MadeCard:
    message = one_line_message(error)
    _log.warning("the report's card %r could not be made: %s", card.title, message)
    _log.debug("card %s", card.name, exc_info=error)
    return MadeCard(card, FAILED, reason=message)
