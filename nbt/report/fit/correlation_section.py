"""Section of a report on the correlation of unit measures with accuracy: a sentence and table rows."""

from __future__ import annotations

from nbt.report.fit.correlation import (
    MIN_TRIALS,
    MeasureCorrelation,
    chance_level,
    comparable_trials,
    measure_correlations,
)
from nbt.report.formatting import TemplateData, signed_number
from nbt.tuning.storage.records import StudyRecord

_LABELS = {
    "ridge_accuracy": "ridge probe",
    "gain": "gain over random",
    "logme": "LogME",
    "h_score": "H-score",
    "mean_shift": "shift of means",
    "variance_shift": "shift of variances",
    "dead_channels": "dead channels",
    "cka_next": "CKA with the next unit",
    "relative_gradient": "relative gradient norm",
}


def correlation_section(record: StudyRecord, backbone: str = "") -> TemplateData | None:
    """Returns the section on the correlation of unit measures with accuracy; None without a profile of units.

    Args:
        record: The study.
        backbone: The setting `backbone` of the trials that count.
    """
    correlations = measure_correlations(record, backbone)
    if not correlations:
        return None
    full = len(comparable_trials(record, backbone))
    if full < MIN_TRIALS:
        return TemplateData(
            sentence=(
                f"The correlation of unit measures with accuracy requires {MIN_TRIALS} full-length trials that did not "
                f"diverge; there {'is' if full == 1 else 'are'} {full}."
            ),
            rows=(),
        )
    pairs = zip(correlations[::2], correlations[1::2], strict=True)
    return TemplateData(
        sentence=(
            "Rank correlation (Kendall's tau-b) with the validation accuracy of the full-length trials that did not "
            "diverge. The value of a measure is taken at the last unit that a trial transfers or freezes; the baseline "
            f"is the number of these units. Without any relation, tau of {full} trials lies within ± "
            f"{chance_level(full):.2f} in 95 % of cases. The search chose these trials, so they are not a random "
            "sample of settings."
        ),
        rows=tuple(_correlation_row(transfer, frozen) for transfer, frozen in pairs),
    )


def _correlation_row(transfer: MeasureCorrelation, frozen: MeasureCorrelation) -> TemplateData:
    same = transfer.trials == frozen.trials
    return TemplateData(
        label=_LABELS[transfer.measure],
        transfer=signed_number(transfer.tau),
        transfer_baseline=signed_number(transfer.baseline),
        frozen=signed_number(frozen.tau),
        frozen_baseline=signed_number(frozen.baseline),
        trials=str(transfer.trials) if same else f"{transfer.trials} and {frozen.trials}",
    )
