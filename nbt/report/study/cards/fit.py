"""The card "fit": how well the pretrained weights fit the images, measured before the search."""

from __future__ import annotations

from nbt.fit.fit_profile import FitProfile
from nbt.report.fit import conclusions, measures
from nbt.report.fit.correlation_section import correlation_section
from nbt.report.fit.plots import layer_curves
from nbt.report.formatting import TemplateData, one_line
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.table import Column, Table, table_of


class Fit(Card):
    """The fit profile of the recommended backbone."""

    name = "fit"
    title = "Fit of the weights"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns conclusions, the measures, and their correlation with the accuracy of the trials."""
        record, backbone = study.record, _shown_backbone(study)
        measured = record.profile_of(backbone)
        if measured is None:
            return NotApplicable("the fit profile of this study was not measured")
        profile = FitProfile.from_dict(measured)
        appendix = measures.appendix_rows(profile)
        correlation = correlation_section(record, backbone)
        candidates = record.config.candidates
        return TemplateData(
            subject=one_line(backbone or candidates[0].name) if candidates else "",
            sentences=tuple(conclusions.suggestions(profile)),
            uncertainty=conclusions.uncertainty_text([profile]),
            drawing=layer_curves(profile),
            measures=_measures_table("Measures of fit", measures.measure_rows(profile)),
            left_out=tuple(measures.missing_measure_lines([profile])),
            optional=measures.optional_measures_sentence([profile]),
            correlation_sentence="" if correlation is None else correlation.sentence,
            correlation=None
            if correlation is None or not correlation.rows
            else table_of(
                "Correlation of the measures with accuracy",
                correlation.rows,
                label=Column("unit measure", "w"),
                transfer=Column("at transfer depth", "n"),
                transfer_baseline=Column("baseline", "n"),
                frozen=Column("at frozen depth", "n"),
                frozen_baseline=Column("baseline", "n"),
                trials=Column("trials", "n wide"),
            ),
            appendix_title=measures.APPENDIX_TITLE,
            appendix=_measures_table(measures.APPENDIX_TITLE, appendix) if appendix else None,
        )


def _shown_backbone(study: StudyView) -> str:
    """Returns the setting `backbone` of the recommendation, or "", the reference, without a profile of its backbone."""
    backbone = "" if study.recommendation is None else study.recommendation.settings.backbone
    return backbone if study.record.profile_of(backbone) is not None else ""


def _measures_table(caption: str, rows: tuple[TemplateData, ...]) -> Table:
    """Returns a table of measures, none of them folded."""
    return table_of(
        caption,
        rows,
        n_shown=len(rows),
        label=Column("measure", "w"),
        value=Column("value", "n"),
        meaning=Column("meaning", "wide remark"),
    )
