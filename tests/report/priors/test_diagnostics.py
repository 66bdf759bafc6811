import json
from typing import Any

import pytest

from nbt.report.priors.diagnostics import (
    CONFIRMED,
    CONTRADICTED,
    UNDECIDED,
    diagnostics_pending,
    evidence_verdict,
    prior_diagnostics,
)
from tests.fit_profiles import profile_dict
from tests.sample_study import sample_study, source, stored_diagnostics, study_with_priors, trial, trials


def test_every_source_keeps_its_numbers() -> None:
    found = prior_diagnostics(study_with_priors())
    assert found is not None
    assert [evidence.name for evidence in found.sources][::3] == ["transfer up to the knee", "recorded tasks"]
    first = found.sources[0]
    assert (first.weight_before, first.spread_before, first.weight_after, first.spread_after) == (0.3, 0.4, 0.45, 0.1)
    assert (first.agreement, first.trials) == (0.62, 10)
    assert found.inactive == (("rates by shift", "not measured: statistics shift by unit"),)
    assert found.recorded_tasks == ("sketch7", "digits")
    assert [evidence.verdict for evidence in found.sources] == [CONFIRMED, CONTRADICTED, UNDECIDED, UNDECIDED]


@pytest.mark.parametrize(
    ("before", "spread", "after", "after_spread", "trials", "expected"),
    [
        (0.3, 0.4, 0.45, 0.1, 10, CONFIRMED),  # rose
        (0.3, 0.4, 0.31, 0.1, 10, CONFIRMED),  # unchanged while the spread fell to a quarter
        (0.3, 0.4, 0.75, 0.3, 10, CONFIRMED),  # rose, although the spread remains large
        (0.3, 0.4, 0.31, 0.3, 10, UNDECIDED),
        (0.9, 0.4, 0.9, 0.3, 10, UNDECIDED),  # far above zero, but the spread was not halved
        (0.3, 0.4, 0.3, 0.4, 0, UNDECIDED),
        (0.3, 0.4, 0.25, 0.2, 10, UNDECIDED),
        (0.3, 0.4, 0.0, 0.1, 10, CONTRADICTED),
        (0.3, 0.4, -0.2, 0.3, 10, CONTRADICTED),
        (0.3, 0.4, -0.2, 0.3, 4, UNDECIDED),  # too few
        (0.0, 0.0, 0.0, 0.0, 10, UNDECIDED),
    ],
)
def test_verdict_follows_from_the_weights(
    before: float, spread: float, after: float, after_spread: float, trials: int, expected: str
) -> None:
    assert evidence_verdict(before, spread, after, after_spread, trials) == expected


@pytest.mark.parametrize("stored", [{}, {"sources": None}, {"tables": "digits"}, {"other": []}])
def test_without_stored_diagnostics_there_are_none(stored: dict[str, Any]) -> None:
    assert prior_diagnostics(sample_study(prior_diagnostics=stored)) is None


def test_damaged_sources_are_left_out_and_the_rest_is_kept() -> None:
    whole = source("good", 0.3, 0.2)
    broken: list[Any] = [{**whole, "name": None}, {**whole, "after": "x"}, {**whole, "mean": float("nan")}, 7, None]
    broken += [{k: v for k, v in whole.items() if k != key} for key in ("name", "mean", "spread", "after_spread")]
    stored = {"sources": [*broken, whole], "silent": [{"name": "quiet"}, "x"], "tables": ["a", 3]}
    found = prior_diagnostics(sample_study(prior_diagnostics=stored))
    assert found is not None
    assert [evidence.name for evidence in found.sources] == ["good"]
    assert (found.inactive, found.recorded_tasks) == ((("quiet", ""),), ("a", "3"))
    bare = {key: whole[key] for key in ("name", "mean", "spread", "after", "after_spread")}
    found = prior_diagnostics(sample_study(prior_diagnostics={"sources": [bare]}))
    assert found is not None
    assert (found.sources[0].description, found.sources[0].agreement, found.sources[0].trials) == ("", None, 0)


def test_pending_diagnostics_are_detected_by_the_recommended_trial() -> None:
    from nbt.tuning.controller import PRIOR_ORIGIN_PREFIX

    first = trial(4, "running", origin=f"{PRIOR_ORIGIN_PREFIX}profile and experience")
    assert diagnostics_pending(sample_study(trials=(first,)))
    assert not diagnostics_pending(sample_study(trials=(first,), prior_diagnostics=stored_diagnostics()))
    assert not diagnostics_pending(sample_study())


def test_diagnostics_of_a_search_are_read() -> None:
    from nbt.tuning.prior_diagnostics import diagnose_priors
    from nbt.tuning.space.space import Space
    from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
    from nbt.tuning.target import Target

    record = sample_study()
    target = Target.of(record.dataset, profile_dict(), record.config.epochs)
    stored = json.loads(json.dumps(diagnose_priors(PriorSurrogate(target, Space.load("non_binary")), trials())))
    found = prior_diagnostics(sample_study(prior_diagnostics=stored))
    assert found is not None
    assert len(found.sources) == len(stored["sources"]) > 3
    assert len(found.inactive) == len(stored["silent"]) > 0
    assert {evidence.trials for evidence in found.sources} == {10}
    assert any(evidence.agreement is not None for evidence in found.sources)
