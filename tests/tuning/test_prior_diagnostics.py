from __future__ import annotations

import json

import numpy as np
import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.prior_diagnostics import diagnose_priors
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.logit_score import accuracy_from_logit_score
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from tests.tuning.synthetic import (
    IMAGES,
    LENGTH,
    SPACE,
    TREES,
    draw,
    facts,
    record,
    target,
    target_facts,
    transferred_priors,
)


@pytest.fixture(scope="module")
def surrogate() -> PriorSurrogate:
    return transferred_priors().surrogate(target_facts(), SPACE)


def trials(settings: list[TransferSettings], logit_scores: np.ndarray, state: str = "complete") -> list[TrialRecord]:
    """Returns trials that reach given merits."""
    accuracies = accuracy_from_logit_score(logit_scores, IMAGES)
    return [
        record(i, one, (EpochResult(1, 1.0, 1.0, float(accuracy), 1.0),), state=state)
        for i, (one, accuracy) in enumerate(zip(settings, accuracies, strict=True))
    ]


def test_before_any_trial_it_is_what_was_expected(surrogate: PriorSurrogate) -> None:
    found = diagnose_priors(surrogate, [])
    assert [source["name"] for source in found["sources"]] == [source.name for source in surrogate.sources]
    for source in found["sources"]:
        assert (source["after"], source["after_spread"]) == (source["mean"], source["spread"])
        assert (source["agreement"], source["trials"]) == (None, 0)
    assert found["tables"] == [model.header.name for model in transferred_priors().models]


def test_it_has_json_types_and_all_parts(surrogate: PriorSurrogate) -> None:
    settings = draw(12)
    found = diagnose_priors(surrogate, [record(i, one, TREES.curve(one)) for i, one in enumerate(settings)])
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"sources", "silent", "tables"}
    assert set(found["sources"][0]) == {
        *("name", "words", "origin", "mean", "spread", "after", "after_spread", "agreement", "trials")
    }


def test_it_leaves_the_guide_as_it_is(surrogate: PriorSurrogate) -> None:
    before = json.dumps(surrogate.explain())
    diagnose_priors(surrogate, [record(i, one, TREES.curve(one)) for i, one in enumerate(draw(6))])
    assert json.dumps(surrogate.explain()) == before


def test_what_was_silent_says_why() -> None:
    found = diagnose_priors(PriorSurrogate(Target.of(facts(), None, LENGTH), SPACE), [])
    silent = {one["name"]: one["reason"] for one in found["silent"]}
    assert silent["pull by similarity"] == "not measured: gain over a random network"


def test_agreement_and_weight_tell_who_was_right() -> None:
    surrogate = PriorSurrogate(target(), SPACE)
    settings = draw(60, seed=3)
    said = surrogate.source_scores(settings)
    names = [source.name for source in surrogate.sources]
    right, wrong = names.index("moderate head rate"), names.index("transfer up to the knee")
    found = diagnose_priors(surrogate, trials(settings, 0.7 * (said[right] - said[wrong])))["sources"]
    assert found[right]["agreement"] > 0.4 and found[wrong]["agreement"] < -0.4
    assert found[right]["after"] > found[right]["mean"] and found[wrong]["after"] < found[wrong]["mean"]
    assert all(source["after_spread"] < source["spread"] for source in found)
    assert all(source["trials"] == 60 for source in found)


def test_agreement_needs_five_full_trials(surrogate: PriorSurrogate) -> None:
    settings = draw(8)
    full = trials(settings[:4], np.arange(4.0))
    stopped = trials(settings[4:], np.arange(4.0), state="pruned")
    found = diagnose_priors(surrogate, [*full, *stopped])["sources"]
    assert all(source["agreement"] is None and source["trials"] == 4 for source in found)
    assert any(source["after"] != source["mean"] for source in found), "but all of them are evidence"
    found = diagnose_priors(surrogate, trials(settings[:5], np.arange(5.0)))["sources"]
    assert all(source["agreement"] is not None for source in found)


def test_without_differences_nobody_is_right(surrogate: PriorSurrogate) -> None:
    same = diagnose_priors(surrogate, trials(draw(6), np.zeros(6)))["sources"]
    assert all(source["agreement"] is None for source in same)
    one = [draw(1)[0]] * 6
    alike = diagnose_priors(surrogate, trials(one, np.arange(6.0)))["sources"]
    assert all(source["agreement"] is None for source in alike)


def test_failed_and_running_trials_say_nothing(surrogate: PriorSurrogate) -> None:
    settings = draw(3)
    idle = [record(0, settings[0], state="failed"), record(1, settings[1], state="running")]
    assert diagnose_priors(surrogate, idle) == diagnose_priors(surrogate, [])
    one = trials(settings[2:], np.ones(1))
    assert diagnose_priors(surrogate, [*idle, *one]) == diagnose_priors(surrogate, one)


def test_a_search_without_sources_has_an_empty_review() -> None:
    found = diagnose_priors(
        PriorSurrogate(Target(epochs=LENGTH), SPACE, heuristics=False), trials(draw(6), np.arange(6.0))
    )
    assert found == {"sources": [], "silent": [], "tables": []}


def test_diverged_trials_are_the_worst(surrogate: PriorSurrogate) -> None:
    settings = draw(6)
    rows = (EpochResult(1, float("inf"), None, None, 1.0, diverged=True),)
    found = diagnose_priors(surrogate, [record(i, one, rows) for i, one in enumerate(settings)])
    assert all(np.isfinite(source["after"]) for source in found["sources"])
