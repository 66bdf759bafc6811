"""The card "search": best value against cost, learning curves, Pareto front, what stopping saved and got wrong."""

from __future__ import annotations

from nbt.report.formatting import TemplateData, duration, join_words, score_text
from nbt.report.priors.forecast_plot import unpromising_trials
from nbt.report.priors.pruning_section import pruning_section
from nbt.report.study import plots
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.drawn_trials import drawn_sentence

_MAX_FRONT = 6


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
            front=plots.cost_front(study.record),
            front_sentence=_front_sentence(study),
            drawn=drawn_sentence(study.record),
            pruning=pruning_section(study.record).sentences,
            forecasts=unpromising_trials(study.record),
        )


def _front_sentence(study: StudyView) -> str:
    """Returns the trials of the Pareto front in words; "" with fewer than two full-length trials."""
    front = plots.pareto_front(study.record)
    if study.record.counts()["complete"] < 2 or not front:
        return ""
    listed = [
        f"trial {trial.number} ({score_text(trial.score(study.metric.name), study.metric)}, {duration(trial.seconds)})"
        for trial in front[-_MAX_FRONT:]
    ]
    return f"No other full-length trial is both better and faster to train than {join_words(listed)}, one run each."
