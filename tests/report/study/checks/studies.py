"""Records of studies for the tests of single checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nbt.checks import Check, CheckResult
from nbt.training.results import EpochResult
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyRecord
from tests.sample_study import BEST, DEFAULT, config, diverged_curve, final, sample_study, trial


def run(check: Check[StudyRecord], **changes: Any) -> CheckResult:
    """Returns the result of a check on the sample study with other fields."""
    return check.run(sample_study(**changes))


def with_curves(curves: Sequence[Sequence[EpochResult]]) -> FinalRecord:
    """Returns the recommended finalist with the given learning curves."""
    base = final("trial 12", 12, BEST, (0.7,), default=(0.65,))
    runs = tuple(FinalRun(seed=seed, curve=tuple(curve)) for seed, curve in enumerate(curves, start=1))
    return replace(base, runs=runs)


def tiny_studies() -> dict[str, StudyRecord]:
    """Returns studies that have too little for most checks, by what is special about them."""
    nothing: dict[str, Any] = {"finals": (), "recommended": None, "verdict": "", "test": (), "noise": None}
    one_seed = final("trial 1", 1, BEST, (0.7,), default=(0.65,))
    diverged = replace(one_seed, runs=(FinalRun(seed=1, curve=diverged_curve()),))
    two_trials = (
        trial(0, settings=DEFAULT, curve=(EpochResult(1, 1.0, 1.0, 0.5, 1.0),)),
        trial(1, settings=BEST, curve=(EpochResult(1, math.inf, None, 0.0, 1.0, diverged=True),)),
    )
    stream = config(scenario="class", tasks=5, epochs=60)
    return {
        "no trials": sample_study(**nothing, trials=()),
        "one trial": sample_study(**nothing, trials=(trial(0, settings=DEFAULT, curve=()),)),
        "failed trials": sample_study(**nothing, trials=(trial(0, "failed", reason="out of memory"),)),
        "diverged trials": sample_study(**nothing, trials=(trial(0, curve=diverged_curve()),)),
        "no facts": sample_study(dataset={}, noise=None),
        "one seed": sample_study(trials=two_trials, finals=(one_seed,), recommended="trial 1", test=()),
        "diverged final": sample_study(trials=two_trials, finals=(diverged,), recommended="trial 1"),
        "stream": sample_study(config=stream, pruner="none"),
    }
