"""Application of the registered priors to a target."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nbt.tuning.priors.measures import MEASURES
from nbt.tuning.priors.prior import Prior, PriorSuggestion
from nbt.tuning.priors.registry import registered_priors
from nbt.tuning.target import Target


@dataclass(frozen=True, kw_only=True)
class PriorActivation:
    """The result of applying a prior to a target.

    Attributes:
        prior: The prior.
        suggestion: Its suggestion, or None if it is not active.
        reason: Reason for which it is not active, "" if it is.
    """

    prior: Prior
    suggestion: PriorSuggestion | None
    reason: str = ""


def activate_priors(target: Target, varied: Collection[str]) -> list[PriorActivation]:
    """Applies every registered prior that concerns a varied setting.

    Args:
        target: Target with the facts and the profile of the task.
        varied: Names of the settings that the space varies.

    Returns:
        One activation per prior, in the order of `registered_priors`.
    """
    return [activate(prior, target) for prior in registered_priors() if set(prior.dimensions) & set(varied)]


def activate(prior: Prior, target: Target) -> PriorActivation:
    """Applies one prior to a target."""
    missing = [measure for measure in prior.needs if MEASURES[measure](target) is None]
    if missing:
        return PriorActivation(prior=prior, suggestion=None, reason=f"not measured: {', '.join(missing)}")
    suggestion = prior.suggest(target)
    reason = "" if suggestion is not None else "the profile gives no reason for it"
    return PriorActivation(prior=prior, suggestion=suggestion, reason=reason)
