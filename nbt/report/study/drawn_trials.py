"""The trials that the drawings and the table of a long study show: its drawings would take minutes, its page 20 MB."""

from __future__ import annotations

from nbt.report.study.recommendation import current_recommendation, default_recipe_trial
from nbt.report.svg import MAX_DRAWN, evenly_spaced
from nbt.tuning.storage.records import StudyRecord, TrialRecord

MAX_LISTED = 1000
"""Greatest number of trials that the table lists."""


def drawn_trials(record: StudyRecord) -> list[TrialRecord]:
    """Returns the trials that are drawn one by one, in the order of their numbers.

    Of more than `MAX_DRAWN` trials, these are the recommended one, that of the default recipe, the best ones, which are
    half of the number, and others that are evenly spaced over the study.
    """
    if len(record.trials) <= MAX_DRAWN:
        return list(record.trials)
    recommendation = current_recommendation(record)
    marked = [None if recommendation is None else recommendation.trial, default_recipe_trial(record)]
    best = record.ranked()[: MAX_DRAWN // 2]
    kept = {trial.number for trial in [*best, *marked] if trial is not None}
    others = [trial.number for trial in record.trials if trial.number not in kept]
    kept.update(evenly_spaced(others, MAX_DRAWN - len(kept)))
    return [trial for trial in record.trials if trial.number in kept]


def drawn_sentence(record: StudyRecord) -> str:
    """Returns which trials are drawn; "" if all are."""
    drawn = len(drawn_trials(record))
    if drawn == len(record.trials):
        return ""
    return (
        f"Of {len(record.trials)} trials, {drawn} are drawn: the best {MAX_DRAWN // 2}, and others evenly spaced; the "
        "line of the best so far and the Pareto front are those of all."
    )


def listed_sentence(record: StudyRecord) -> str:
    """Returns how many trials the table lists; "" if all."""
    if len(record.trials) <= MAX_LISTED:
        return ""
    return f"The first {MAX_LISTED} of {len(record.trials)} trials in this order are listed; trials.csv has all."
