"""The card "other checks": the checks of data and result that found nothing, or could not be made."""

from __future__ import annotations

from nbt.report.formatting import TemplateData
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.checks.registry import count_sentence
from nbt.report.table import Column, row, table


class OtherChecks(Card):
    """The checks that did not fail; the failed ones stand in the answer."""

    name = "checks"
    title = "Other checks"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns their number and a table."""
        others = [check for check in study.checks if not check.is_failed]
        if not others:
            return NotApplicable("no check passed")
        columns = (Column("check", "w"), "looks for", Column("state", "w"), Column("result", "remark"))
        rows = [row(check.code, check.title, check.state.replace("_", " "), check.message) for check in others]
        return TemplateData(sentence=count_sentence(others), table=table("Checks", columns, rows, n_shown=len(rows)))
