"""NBT204: the surrogate of the search does not predict the results of trials."""

from __future__ import annotations

from collections.abc import Mapping

from nbt.checks import Check, CheckResult
from nbt.report.formatting import signed_number
from nbt.report.stored_values import number_at
from nbt.tuning.storage.records import StudyRecord

_MIN_TRIALS = 20
"""Fewer trials cannot distinguish a rank correlation of .45 from 0."""


class SurrogateSkill(Check[StudyRecord]):
    """Reads the cross-validated rank correlation of the surrogate, see `nbt.tuning.surrogate_skill`."""

    code = "NBT204"
    title = "surrogate without skill"
    severity = "warning"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a rank correlation whose 95 % interval contains 0."""
        skill = subject.prior_diagnostics.get("skill")
        if not isinstance(skill, Mapping):
            return self.not_applicable(
                "The search had no surrogate or too few full-length trials, or its version did not validate it."
            )
        correlation, low, high, trials = (number_at(skill, key) for key in ("correlation", "low", "high", "trials"))
        if correlation is None or low is None or high is None or trials is None:
            return self.not_applicable("The full-length trials or their predictions are all equal.")
        found = (
            f"The rank correlation of {int(trials)} full-length trials with the surrogate's predictions without them "
            f"is {signed_number(correlation)} (95 % interval {signed_number(low)} to {signed_number(high)})"
        )
        if low > 0.0:
            return self.passed(f"{found}.")
        if trials < _MIN_TRIALS:
            return self.not_applicable(f"{found}, which {int(trials)} trials cannot distinguish from 0.")
        return self.failed(
            f"{found}: the surrogate is not shown to be better than random proposals.",
            "Rely on the final runs rather than on the order of the trials; search with a larger --budget, or compare "
            "with --no-heuristics in another --study.",
        )
