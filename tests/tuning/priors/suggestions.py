"""Targets, and functions that ask one prior for its suggestion."""

from __future__ import annotations

from typing import Any

from nbt.settings import TransferSettings
from nbt.tuning.priors.activation import activate_priors
from nbt.tuning.priors.prior import Prior, PriorSuggestion
from nbt.tuning.priors.registry import registered_priors
from nbt.tuning.storage.codec import TLI_SIMILARITIES, TLI_SIMILARITY
from nbt.tuning.target import Target
from tests.tuning.benchmark.tables import FULL_SPACE
from tests.tuning.synthetic import LENGTH, facts, profile
from tests.tuning.synthetic import draw as draw_settings

NAMES = [prior.name for prior in registered_priors()]
# The default space does not vary `teacher`, `zap_until` and `epochs`.
VARIED = [*(dimension.name for dimension in FULL_SPACE.dimensions), "teacher", "zap_until", "epochs"]
BASE = TransferSettings(epochs=LENGTH)
# A target with few images, few epochs and good features, on which every prior is active.
TEACHERS = {TLI_SIMILARITY: 0.7, TLI_SIMILARITIES: {"vgg11": 0.7, "vgg13": 0.4}}
FULLY_MEASURED = Target.of(facts(**TEACHERS), profile(0.7, 0.1, similarity=0.7), LENGTH)
DEPTHS = tuple(round(0.05 * i, 2) for i in range(21))
NO_REASON = "the profile gives no reason for it"


def draw(n: int, seed: int) -> list[TransferSettings]:
    return draw_settings(n, seed, FULL_SPACE)


def get_prior(name: str) -> Prior:
    return next(prior for prior in registered_priors() if prior.name == name)


def suggestion(name: str, on: Target = FULLY_MEASURED) -> PriorSuggestion:
    suggested = get_prior(name).suggest(on)
    assert suggested is not None
    return suggested


def inactivity_reason(name: str, on: Target) -> str:
    """Returns the reason for which a prior is not active."""
    activation = next(activation for activation in activate_priors(on, VARIED) if activation.prior.name == name)
    assert activation.suggestion is None
    return activation.reason


def best(name: str, on: Target, choices: dict[Any, TransferSettings]) -> Any:
    """Returns the key of the settings with the greatest density."""
    log_density = suggestion(name, on).log_density
    return max(choices, key=lambda key: log_density(choices[key]))


def grid(field: str, *values: Any, **fixed: Any) -> dict[Any, TransferSettings]:
    return {value: BASE.replace(**fixed, **{field: value}) for value in values}
