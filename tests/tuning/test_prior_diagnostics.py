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
    source_tables,
    target,
    transferred_priors,
    trees_target,
)


@pytest.fixture(scope="module")
def surrogate() -> PriorSurrogate:
    return transferred_priors().surrogate(trees_target(), SPACE)


def trials(settings: list[TransferSettings], logit_scores: np.ndarray, state: str = "complete") -> list[TrialRecord]:
    """Returns trials with the given logit scores."""
    accuracies = accuracy_from_logit_score(logit_scores, IMAGES)
    return [
        record(i, recipe, (EpochResult(1, 1.0, 1.0, float(accuracy), 1.0),), state=state)
        for i, (recipe, accuracy) in enumerate(zip(settings, accuracies, strict=True))
    ]


def test_without_trials_the_weights_are_those_of_the_prior(surrogate: PriorSurrogate) -> None:
    diagnostics = diagnose_priors(surrogate, [])
    assert [source["name"] for source in diagnostics["sources"]] == [source.name for source in surrogate.sources]
    for source in diagnostics["sources"]:
        assert (source["after"], source["after_spread"]) == (source["mean"], source["spread"])
        assert (source["agreement"], source["trials"]) == (None, 0)
    assert diagnostics["tables"] == [recorded.header.name for recorded in source_tables()]


def test_it_has_json_types_and_all_keys(surrogate: PriorSurrogate) -> None:
    settings = draw(12)
    diagnostics = diagnose_priors(
        surrogate, [record(i, recipe, TREES.curve(recipe)) for i, recipe in enumerate(settings)]
    )
    assert json.loads(json.dumps(diagnostics)) == diagnostics
    assert set(diagnostics) == {"sources", "silent", "tables", "skill"}
    assert set(diagnostics["sources"][0]) == {
        *("name", "words", "origin", "mean", "spread", "after", "after_spread", "agreement", "trials")
    }


def test_it_does_not_change_the_surrogate(surrogate: PriorSurrogate) -> None:
    before = json.dumps(surrogate.explain())
    diagnose_priors(surrogate, [record(i, recipe, TREES.curve(recipe)) for i, recipe in enumerate(draw(6))])
    assert json.dumps(surrogate.explain()) == before


def test_inactive_priors_have_a_reason() -> None:
    diagnostics = diagnose_priors(PriorSurrogate(Target.of(facts(), None, LENGTH), SPACE), [])
    silent = {prior["name"]: prior["reason"] for prior in diagnostics["silent"]}
    assert silent["transfer up to the knee"] == "not measured: knee of the gain, advantage over random weights"


def test_agreement_and_weight_reflect_the_accuracies() -> None:
    surrogate = PriorSurrogate(target(), SPACE)
    settings = draw(60, seed=3)
    scores = surrogate.source_scores(settings)
    names = [source.name for source in surrogate.sources]
    right, wrong = names.index("moderate head rate"), names.index("transfer up to the knee")
    diagnostics = diagnose_priors(surrogate, trials(settings, 0.7 * (scores[right] - scores[wrong])))["sources"]
    assert diagnostics[right]["agreement"] > 0.4 and diagnostics[wrong]["agreement"] < -0.4
    assert (
        diagnostics[right]["after"] > diagnostics[right]["mean"]
        and diagnostics[wrong]["after"] < diagnostics[wrong]["mean"]
    )
    assert all(source["after_spread"] < source["spread"] for source in diagnostics)
    assert all(source["trials"] == 60 for source in diagnostics)


def test_agreement_needs_five_full_trials(surrogate: PriorSurrogate) -> None:
    settings = draw(8)
    full = trials(settings[:4], np.arange(4.0))
    stopped = trials(settings[4:], np.arange(4.0), state="pruned")
    diagnostics = diagnose_priors(surrogate, [*full, *stopped])["sources"]
    assert all(source["agreement"] is None and source["trials"] == 4 for source in diagnostics)
    assert any(source["after"] != source["mean"] for source in diagnostics), "stopped trials change the weights"
    diagnostics = diagnose_priors(surrogate, trials(settings[:5], np.arange(5.0)))["sources"]
    assert all(source["agreement"] is not None for source in diagnostics)


def test_without_differences_there_is_no_agreement(surrogate: PriorSurrogate) -> None:
    equal_accuracies = diagnose_priors(surrogate, trials(draw(6), np.zeros(6)))["sources"]
    assert all(source["agreement"] is None for source in equal_accuracies)
    equal_settings = diagnose_priors(surrogate, trials([draw(1)[0]] * 6, np.arange(6.0)))["sources"]
    assert all(source["agreement"] is None for source in equal_settings)


def test_failed_and_running_trials_are_ignored(surrogate: PriorSurrogate) -> None:
    settings = draw(3)
    ignored = [record(0, settings[0], state="failed"), record(1, settings[1], state="running")]
    assert diagnose_priors(surrogate, ignored) == diagnose_priors(surrogate, [])
    complete = trials(settings[2:], np.ones(1))
    assert diagnose_priors(surrogate, [*ignored, *complete]) == diagnose_priors(surrogate, complete)


def test_a_search_without_sources_has_empty_diagnostics() -> None:
    diagnostics = diagnose_priors(
        PriorSurrogate(Target(epochs=LENGTH), SPACE, heuristics=False), trials(draw(6), np.arange(6.0))
    )
    assert diagnostics.pop("skill")["trials"] == 6
    assert diagnostics == {"sources": [], "silent": [], "tables": []}


def test_diverged_trials_are_the_worst(surrogate: PriorSurrogate) -> None:
    settings = draw(6)
    rows = (EpochResult(1, float("inf"), None, None, 1.0, diverged=True),)
    diagnostics = diagnose_priors(surrogate, [record(i, recipe, rows) for i, recipe in enumerate(settings)])
    assert all(np.isfinite(source["after"]) for source in diagnostics["sources"])
