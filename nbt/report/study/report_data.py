"""A study's report: its title and its cards; the templates only lay it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nbt.report.formatting import one_line
from nbt.report.study.cards.card import MadeCard, StudyView, make_cards
from nbt.report.study.cards.registry import CARDS
from nbt.report.study.recommendation import StudyRecommendation
from nbt.tuning.storage.records import StudyRecord


@dataclass(frozen=True, eq=False)
class StudyReport:
    """The report of a study.

    Attributes:
        title: Name of the study.
        subtitle: Its dataset, backbone and space.
        recommendation: The recommended settings; None without a full-length trial.
        cards: The cards, the folded ones last.
    """

    title: str
    subtitle: str
    recommendation: StudyRecommendation | None
    cards: tuple[MadeCard, ...]

    def __getitem__(self, name: str) -> MadeCard:
        """Returns a card by its name."""
        return next(made for made in self.cards if made.card.name == name)


def build_report(record: StudyRecord, folder: Path, *, has_model: bool = False) -> StudyReport:
    """Returns the report of a study.

    Args:
        record: The study, finished or not.
        folder: Folder of the report, as it appears in the commands.
        has_model: Whether the folder contains the model of the recommendation.
    """
    config, study = record.config, StudyView(record, folder, has_model)
    return StudyReport(
        title=one_line(config.name),
        subtitle=one_line(f"{config.dataset} · {config.backbones_text} · space {config.space}"),
        recommendation=study.recommendation,
        cards=make_cards((card for card in CARDS if card.is_shown(record)), study),
    )
