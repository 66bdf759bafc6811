"""The card "priors": the priors and recorded tasks of the search, before and after its trials."""

from __future__ import annotations

from nbt.report.formatting import TemplateData
from nbt.report.priors.priors_section import priors_section
from nbt.report.study.cards.card import Card, StudyView
from nbt.report.table import Cell, Column, row, table


class Priors(Card):
    """What the search expected, and what its trials said."""

    name = "priors"
    title = "Priors"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData:
        """Returns sentences, the active sources, and the inactive priors."""
        section = priors_section(study.record)
        columns = (
            Column("prior or recorded tasks", "recipe"),
            Column("weight before", "n wide"),
            Column("weight after", "n"),
            Column("agreement", "n wide"),
            "verdict of the trials",
        )
        rows = [
            row(
                Cell(f"{source.name}: {source.description}", note=source.origin),
                source.weight_before,
                source.weight_after,
                source.agreement,
                Cell("", badges=(source.verdict,)),
            )
            for source in section.sources
        ]
        return TemplateData(
            sentences=section.sentences,
            sources=table("Priors and recorded tasks", columns, rows, n_shown=len(rows)) if rows else None,
            legend=section.legend,
            inactive=section.inactive,
        )
