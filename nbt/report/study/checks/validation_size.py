"""NBT202: the validation part is too small for the gain that the trials suggest."""

from __future__ import annotations

import math
from statistics import NormalDist

from nbt.checks import Check, CheckResult
from nbt.metrics import METRICS
from nbt.report.formatting import difference_number, pluralise
from nbt.report.study.headline import error_text, reference_of
from nbt.report.study.recommendation import default_recipe_trial
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.storage.records import FinalRecord, StudyRecord

_POWER = 0.8
# A true difference of this many half widths of a 95 % interval is found with probability `_POWER`.
_DETECTABLE_HALF_WIDTHS = 1 + NormalDist().inv_cdf(_POWER) / NormalDist().inv_cdf(0.975)


class ValidationSize(Check[StudyRecord]):
    """Compares the smallest difference that the finals can show with the gain that the trials suggest.

    The smallest difference is the one that the 95 % interval excludes 0 for in four of five cases. The gain is that of
    the best finalist over the default recipe in the search, where both ran on the same validation images.
    """

    code = "NBT202"
    title = "validation part too small"
    severity = "warning"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a suggested gain that is smaller than the smallest detectable difference."""
        compared = [(final, half_width) for final in subject.finals if (half_width := _half_width(final)) is not None]
        if not compared:
            return self.not_applicable("No finalist was compared with the default recipe by an interval.")
        recommended = [pair for pair in compared if pair[0].name == subject.recommended]
        final, half_width = (recommended or compared)[0]
        detectable = _DETECTABLE_HALF_WIDTHS * half_width
        size = error_text(detectable, *reference_of(subject, final))
        smallest = f"The smallest difference that these finals find in four of five cases is {size}"
        gain = _suggested_gain(subject, final)
        if gain is None:
            return self.not_applicable(f"{smallest}; a trial of {final.name} or of the default recipe is missing.")
        suggested = f"the trials suggest {_gain_text(subject, gain)} for {final.name}"
        if gain <= 0.0 or detectable <= gain or _is_different(final):
            return self.passed(f"{smallest}; {suggested}.")
        images = subject.dataset.get(VALIDATION_IMAGES)
        part = f" with {pluralise(int(images), 'validation image')}" if images else ""
        needed = f"about {math.ceil(int(images) * (detectable / gain) ** 2):,}" if images else "more"
        return self.failed(
            f"{smallest}{part}, but {suggested}.",
            f"Add labelled images, so that {needed} are validated, or give more --final-seeds; do not read a "
            f"difference below {size} as a gain.",
        )


def _half_width(final: FinalRecord) -> float | None:
    versus = final.versus_default
    return None if versus is None or versus.low is None or versus.high is None else (versus.high - versus.low) / 2


def _is_different(final: FinalRecord) -> bool:
    versus = final.versus_default
    return versus is not None and versus.low is not None and versus.low > 0


def _suggested_gain(record: StudyRecord, final: FinalRecord) -> float | None:
    """Returns the gain in score of the finalist's trial; None if it or that of the default recipe is missing."""
    trial, reference = next((t for t in record.trials if t.number == final.trial), None), _default_score(record)
    score = None if trial is None else trial.score(record.config.metric)
    return None if score is None or reference is None else score - reference


def _default_score(record: StudyRecord) -> float | None:
    default = default_recipe_trial(record)
    return None if default is None else default.score(record.config.metric)


def _gain_text(record: StudyRecord, gain: float) -> str:
    metric = METRICS[record.config.metric]
    return f"{difference_number(gain, metric, _default_score(record) or 0.0)} {metric.difference_unit}"
