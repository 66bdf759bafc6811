"""The card "reproduce": the command of the search, versions and fingerprints, and further commands."""

from __future__ import annotations

from nbt._version import __version__
from nbt.models.teacher import short_teacher_names
from nbt.report.formatting import Fact, TemplateData, join_words, one_line
from nbt.report.study.cards.card import Card, StudyView
from nbt.report.study.reproduce import commands
from nbt.settings.teacher_names import parse_teacher_names
from nbt.tuning.storage.records import StudyConfig


class Reproduce(Card):
    """How to run the search again, and what made its result."""

    name = "reproduce"
    title = "Reproduce and continue"

    def content(self, study: StudyView) -> TemplateData:
        """Returns the command of the search, other commands, fingerprints and files."""
        record = study.record
        listed = commands(
            record, study.folder, has_settings=study.recommendation is not None, has_model=study.has_model
        )
        return TemplateData(
            commands=listed,
            fingerprints=_fingerprints(study),
            has_model=study.has_model,
            has_profile=record.profile is not None,
            has_classes=record.test_predictions("recommended") is not None,
        )


def _teachers_label(config: StudyConfig) -> str:
    names = list(map(one_line, short_teacher_names(parse_teacher_names(config.teacher)).values()))
    return f"Weights of the {'teacher' if len(names) == 1 else 'teachers'} {join_words(names)}"


def _fingerprints(study: StudyView) -> tuple[Fact, ...]:
    config = study.record.config
    values = {
        "nbt": __version__,
        "Seed": str(config.seed),
        "Images, labels and parts": config.data_hash,
        "Bytes of the images": config.content_hash,
        **({} if config.candidates else {"Weights": config.weights_hash}),
        **{f"Weights of {candidate.name}": candidate.weights_hash for candidate in config.candidates},
        "Search space": config.space_hash,
        _teachers_label(config): config.teacher_hash,
    }
    return tuple(Fact(label, value[:16]) for label, value in values.items() if value)
