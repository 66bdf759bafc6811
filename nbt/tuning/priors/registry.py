"""The registry of priors: those of nbt, and those that are registered from outside."""

from __future__ import annotations

from nbt.tuning.priors.depth import freeze_when_images_are_few, transfer_up_to_the_knee
from nbt.tuning.priors.head import stall_while_the_head_is_random
from nbt.tuning.priors.injection import inject_by_similarity, inject_the_most_similar
from nbt.tuning.priors.linearization import the_expansion_when_images_are_few
from nbt.tuning.priors.measures import MEASURES
from nbt.tuning.priors.prior import Prior
from nbt.tuning.priors.rates import (
    low_unit_rate_when_similar,
    moderate_head_rate,
    moderate_unit_rate,
    rates_by_shift,
)
from nbt.tuning.priors.schedule import (
    at_least_the_usual_length,
    average_within_the_training,
    enough_steps,
    mild_augmentation_when_short,
)
from nbt.tuning.priors.zapping import stop_zapping_early, zap_rarely_when_training_is_short

_PRIORS = {
    item.name: item
    for item in (
        transfer_up_to_the_knee,
        freeze_when_images_are_few,
        moderate_unit_rate,
        moderate_head_rate,
        low_unit_rate_when_similar,
        rates_by_shift,
        mild_augmentation_when_short,
        average_within_the_training,
        enough_steps,
        at_least_the_usual_length,
        stall_while_the_head_is_random,
        zap_rarely_when_training_is_short,
        stop_zapping_early,
        inject_by_similarity,
        inject_the_most_similar,
        the_expansion_when_images_are_few,
    )
}


def registered_priors() -> tuple[Prior, ...]:
    """Returns all priors, in the order of their registration."""
    return tuple(_PRIORS.values())


def register_prior(prior: Prior) -> Prior:
    """Adds a prior to all searches that start later in this process; returns it.

    Raises:
        ValueError: A prior of this name exists, or the prior needs a measure that does not exist.
    """
    if prior.name in _PRIORS:
        raise ValueError(f"prior {prior.name!r} exists already; choose another name, or unregister it first")
    unknown = [measure for measure in prior.needs if measure not in MEASURES]
    if unknown:
        raise ValueError(f"prior {prior.name!r}: unknown measures {unknown}; known ones are {list(MEASURES)}")
    _PRIORS[prior.name] = prior
    return prior


def unregister_prior(prior: Prior) -> None:
    """Removes a registered prior.

    Raises:
        KeyError: The prior is not registered.
    """
    del _PRIORS[prior.name]
