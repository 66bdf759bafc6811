"""The card "unpromising trials": the forecasts by which trials were stopped, and what became of the others."""

from __future__ import annotations

from nbt.report.formatting import TemplateData
from nbt.report.priors.pruning_section import pruning_section
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.table import Column, table_of


class Pruning(Card):
    """Every trial that the pruner judged unpromising."""

    name = "pruning"
    title = "Unpromising trials"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns a table of their forecasts and outcomes."""
        rows = pruning_section(study.record).rows
        if not rows:
            return NotApplicable("no trial with a forecast was judged unpromising")
        return TemplateData(
            table=table_of(
                "Unpromising trials",
                rows,
                number=Column("trial", "n"),
                decision=Column("decision"),
                epochs=Column("epochs", "n wide"),
                mean=Column("forecast", "n wide"),
                interval=Column("80 % interval", "n"),
                to_beat=Column("to beat", "n wide"),
                chance=Column("chance", "n wide"),
                outcome=Column("reached"),
                reason=Column("reason", "wide remark"),
            )
        )
