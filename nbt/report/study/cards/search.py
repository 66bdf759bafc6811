"""The card "search": the best value against the cost, the learning curves, and what stopping saved and got wrong."""

from __future__ import annotations

from nbt.report.formatting import TemplateData
from nbt.report.priors.forecast_plot import unpromising_trials
from nbt.report.priors.pruning_section import pruning_section
from nbt.report.study import plots
from nbt.report.study.cards.card import Card, NotApplicable, StudyView


class Search(Card):
    """How the search went."""

    name = "search"
    title = "Search"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns drawings and the sentences on pruning."""
        if not study.record.trials:
            return NotApplicable("no trial has been started")
        return TemplateData(
            label=study.metric.label,
            best=plots.best_by_cost(study.record),
            curves=plots.learning_curves(study.record),
            pruning=pruning_section(study.record).sentences,
            forecasts=unpromising_trials(study.record),
        )
