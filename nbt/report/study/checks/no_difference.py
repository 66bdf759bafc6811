"""NBT201: the recommendation and the default recipe do not differ."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.metrics import METRICS
from nbt.report.formatting import difference_interval, difference_number, pluralise
from nbt.report.study.headline import reference_of
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.test_section import difference_sentence
from nbt.tuning.finals.test_results import TestResults, test_results
from nbt.tuning.storage.records import StudyRecord


class NoDifference(Check[StudyRecord]):
    """Compares the recommended settings with the default recipe by their final runs."""

    code = "NBT201"
    title = "no difference from the default recipe"
    severity = "info"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a recommendation that is the default recipe, or whose interval contains 0."""
        recommendation = current_recommendation(subject)
        if recommendation is None or recommendation.final is None:
            return self.not_applicable("The study has no final runs.")
        larger = "Search with a larger --budget."
        if recommendation.is_default:
            return self.failed("The recommendation is the default recipe: the search found nothing better.", larger)
        versus = recommendation.final.versus_default
        if versus is None:
            return self.not_applicable("The default recipe was not run in the finals.")
        metric, reference = reference_of(subject, recommendation.final)
        difference = f"{difference_number(versus.mean, metric, reference)} {metric.difference_unit}"
        if versus.low is None or versus.high is None:
            return self.failed(f"One final run ({difference}) has no interval.", _MORE_SEEDS)
        found = (
            f"{recommendation.name} and the default recipe differ by {difference} over "
            f"{pluralise(versus.n, 'final run')} ({difference_interval(versus, metric, reference)})."
        )
        found = found[:1].upper() + found[1:]
        tested, is_unclear = test_results(subject), versus.low <= 0.0 <= versus.high
        if tested is not None and _is_worse(tested):
            sentence = difference_sentence(tested)
            if is_unclear:
                joined = f"{found[:-1]}, too little to tell them apart and to choose otherwise, but o{sentence[1:]}"
            else:
                joined = f"{found} {sentence}"
            return self.failed(joined, _WORSE_IN_TEST, severity="warning")
        if is_unclear:
            # Fewer final runs than --final-seeds allows: the time of the trials limits them.
            more = f"{_MORE_SEEDS} {larger}" if versus.n >= subject.search_config().final_seeds else _LARGER_BUDGET
            return self.failed(f"{found[:-1]}, and the 95 % interval contains 0.", more)
        return self.passed(found)


def _is_worse(tested: TestResults) -> bool:
    """Returns whether the recommendation is worse than the default recipe on the test images beyond noise."""
    difference = tested.difference
    if difference is None or difference.low is None or difference.high is None:
        return False
    return difference.high < 0.0 if METRICS[tested.recommended.metric].higher_is_better else difference.low > 0.0


_WORSE_IN_TEST = "Use the default recipe, or search with a larger --budget and more --final-seeds."
_LARGER_BUDGET = "Search with a larger --budget, which allows more final runs, too."
_MORE_SEEDS = "Run the same command with more --final-seeds, which narrows the interval."
