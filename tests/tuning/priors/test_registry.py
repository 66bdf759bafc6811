"""The registry: names, references and dimensions of all priors, and priors from outside."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.priors.activation import activate_priors
from nbt.tuning.priors.prior import Prior, PriorSuggestion, prior
from nbt.tuning.priors.registry import register_prior, registered_priors, unregister_prior
from nbt.tuning.priors.statement import at_most, setting
from nbt.tuning.target import Target
from tests.tuning.priors.suggestions import FULLY_MEASURED, NAMES, draw, get_prior, suggestion
from tests.tuning.synthetic import LENGTH


def test_each_prior_has_a_name_a_source_and_dimensions() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 10
    for item in registered_priors():
        assert item.source and item.strength > 0
        assert set(item.dimensions) <= set(SETTINGS)


@pytest.mark.parametrize("name", NAMES)
def test_a_density_is_finite_and_depends_on_its_dimensions_only(name: str) -> None:
    log_density, dimensions = suggestion(name).log_density, set(get_prior(name).dimensions)
    # Whether all units are frozen changes the meaning of other dimensions: rates of frozen units have no effect. The
    # end of zapping has no effect without zaps.
    context = {"frozen_depth", "transfer_depth", "optimizer", "batch_size", "momentum", "zap_period"}
    for settings, other in zip(draw(40, 1), draw(40, 2), strict=True):
        values = settings.to_dict()
        changed = {field: value for field, value in other.to_dict().items() if field not in dimensions | context}
        assert math.isfinite(log_density(settings))
        assert log_density(TransferSettings.from_dict({**values, **changed})) == pytest.approx(log_density(settings))


@pytest.mark.parametrize("name", NAMES)
def test_words_are_made_from_the_statements(name: str) -> None:
    suggested = suggestion(name)
    assert suggested.statements
    assert all(statement.text in suggested.words for statement in suggested.statements)
    assert suggested.words.endswith(f": {suggested.because}")
    assert not any(mark in suggested.words for mark in ("%%", "nan", "inf"))


@prior(source="this test", dimensions=("warmup",), strength=0.2, needs=("probe accuracy",))
def short_warmup(target: Target) -> PriorSuggestion | None:
    return PriorSuggestion((at_most(setting("warmup"), 0.1, 0.2),), f"probe accuracy {target.probe}")


@pytest.fixture
def registered() -> Iterator[Prior]:
    yield register_prior(short_warmup)
    unregister_prior(short_warmup)


def test_a_prior_can_be_registered_from_outside(registered: Prior) -> None:
    assert registered_priors()[-1] is registered
    (activation,) = activate_priors(FULLY_MEASURED, ["warmup"])
    assert activation.suggestion is not None
    assert activation.suggestion.words == "warmup is at most 0.1: probe accuracy 0.7"
    (inactive,) = activate_priors(Target(epochs=LENGTH), ["warmup"])
    assert inactive.reason == "not measured: probe accuracy"


def test_a_name_is_registered_once(registered: Prior) -> None:
    with pytest.raises(ValueError, match="'short warmup' exists already"):
        register_prior(registered)


def test_after_the_test_it_is_gone() -> None:
    assert activate_priors(FULLY_MEASURED, ["warmup"]) == []
    with pytest.raises(KeyError):
        unregister_prior(short_warmup)


def test_an_unknown_measure_is_refused() -> None:
    unknown = Prior(name="x", source="s", dimensions=("ema",), needs=("mood",), strength=0.1, suggest=lambda _: None)
    with pytest.raises(ValueError, match=r"unknown measures \['mood'\]; known ones are \['images per class'"):
        register_prior(unknown)
