"""The card "what matters": the importance of the settings."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nbt.report.formatting import DASH, EN_DASH, TemplateData, one_line, percent
from nbt.report.study import plots
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.sentences import importance_sentence
from nbt.report.table import Column, table_of


class Importance(Card):
    """Which settings distinguish the best trials from the others."""

    name = "importance"
    title = "What matters"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the importances as a table and a drawing."""
        rows = importance_rows(study.record.importance, study.record.load_importance_bounds())
        if not rows:
            full = study.record.counts()["complete"]
            return NotApplicable(
                f"the full-length trials ({full} so far) are too few or too similar to estimate importances"
            )
        share, interval = Column("share", "n"), Column("95 % interval", "n")
        return TemplateData(
            sentence=importance_sentence(study.record),
            drawing=plots.importance_bars(study.record),
            table=table_of("Importance of the settings", rows, name="setting", text=share, bounds=interval),
        )


def importance_rows(
    importance: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]
) -> tuple[TemplateData, ...]:
    """Returns the dimensions with a finite importance, the largest first, each with its interval where it has one."""
    shares = [(name, share) for name, share in importance.items() if math.isfinite(share)]
    shares.sort(key=lambda item: (-item[1], item[0]))
    return tuple(
        TemplateData(name=one_line(name), share=share, text=percent(share, 0), bounds=_bounds_text(bounds.get(name)))
        for name, share in shares
    )


def _bounds_text(bounds: tuple[float, float] | None) -> str:
    return DASH if bounds is None else f"{100 * bounds[0]:.0f}{EN_DASH}{percent(bounds[1], 0)}"
