"""The card "what matters": the importance of the settings."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nbt.report.formatting import TemplateData, one_line, percent
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
        rows = importance_rows(study.record.importance)
        if not rows:
            full = study.record.counts()["complete"]
            return NotApplicable(
                f"the full-length trials ({full} so far) are too few or too similar to estimate importances"
            )
        return TemplateData(
            sentence=importance_sentence(study.record),
            drawing=plots.importance_bars(study.record),
            table=table_of("Importance of the settings", rows, name="setting", text=Column("share", "n")),
        )


def importance_rows(importance: Mapping[str, float]) -> tuple[TemplateData, ...]:
    """Returns the dimensions with a finite importance, the largest first."""
    shares = [(one_line(name), share) for name, share in importance.items() if math.isfinite(share)]
    shares.sort(key=lambda item: (-item[1], item[0]))
    return tuple(TemplateData(name=name, share=share, text=percent(share, 0)) for name, share in shares)
