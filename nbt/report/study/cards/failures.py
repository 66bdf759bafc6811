"""The card "failed trials": the reasons, with the last traceback of each."""

from __future__ import annotations

from nbt.report.formatting import TemplateData, join_words, one_line
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.tuning.storage.records import StudyRecord, TrialRecord


class Failures(Card):
    """Trials that failed."""

    name = "failures"
    title = "Failed trials"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the reasons, the most frequent first."""
        found = failures(study.record)
        return TemplateData(failures=found) if found else NotApplicable("no trial failed")


def failures(record: StudyRecord) -> tuple[TemplateData, ...]:
    """Returns the reasons of failed trials, the most frequent first; interrupted trials do not count as failed."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in record.trials:
        if trial.end == "failed":
            groups.setdefault(one_line(trial.reason) or "no reason recorded", []).append(trial)
    return tuple(
        TemplateData(
            reason=reason,
            trials=join_words([str(trial.number) for trial in trials]),
            traceback=str(trials[-1].facts.get("traceback") or ""),
        )
        for reason, trials in sorted(groups.items(), key=lambda item: -len(item[1]))
    )
