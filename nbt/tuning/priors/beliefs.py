"""Priors from the beliefs of a user, in the same form as the rules of nbt: a weight that is learned from the trials."""

from __future__ import annotations

from collections.abc import Sequence

from nbt.errors import nearest
from nbt.settings import SETTINGS
from nbt.settings.belief import Belief, BeliefError
from nbt.tuning.priors.prior import Prior, PriorSuggestion
from nbt.tuning.priors.statement import Choice, Statement, at_least, at_most, between, near, setting
from nbt.tuning.space.dimension import Dimension, format_value
from nbt.tuning.space.space import Space

# Standard deviations where a belief has none, as shares of the range of the dimension.
_DEFAULT_SPREAD, _EDGE = 0.25, 0.1
# Log density that a choice loses which the user does not expect; two standard deviations of a normal distribution.
_OTHER_CHOICE = 2.0


def belief_priors(beliefs: Sequence[Belief], space: Space) -> tuple[Prior, ...]:
    """Returns one prior per belief.

    Args:
        beliefs: The beliefs.
        space: The search space.

    Raises:
        UsageError: A belief is about a setting that the space does not vary, or about values outside its range.
    """
    return tuple(_prior(belief, _dimension(belief, space)) for belief in beliefs)


def _dimension(belief: Belief, space: Space) -> Dimension:
    """Returns the dimension that a belief is about."""
    name = belief.dimension
    dimensions = {dimension.name: dimension for dimension in space.dimensions}
    if name in space.same_as:
        raise BeliefError(
            belief.dimension, f"space {space.name} sets it to {space.same_as[name]}: give a belief about that"
        )
    if name in dimensions:
        if dimensions[name].knots:
            raise BeliefError(belief.dimension, "beliefs about lists of numbers are not supported")
        return dimensions[name]
    if name in SETTINGS:
        value = format_value(space.fixed.get(name, SETTINGS[name].default))
        raise BeliefError(
            belief.dimension, f"space {space.name} does not vary it here (it is fixed at {value}): leave it out"
        )
    raise BeliefError(belief.dimension, f"unknown dimension; {nearest(name, dimensions)}")


def _prior(belief: Belief, dimension: Dimension) -> Prior:
    statement = _statement(belief, dimension)
    suggestion = PriorSuggestion((statement,), f"believed with certainty {belief.certainty:g}")
    return Prior(
        name=f"belief about {dimension.name}: {statement.text}",
        source="the user's configuration",
        dimensions=(dimension.name,),
        strength=belief.certainty,
        suggest=lambda target: suggestion,
    )


def _statement(belief: Belief, dimension: Dimension) -> Statement:
    if dimension.kind == "categorical":
        if not belief.choices:
            raise BeliefError(
                belief.dimension, f"it has choices: give is: VALUE, one or a list of {dimension.describe()}"
            )
        for choice in belief.choices:
            if choice not in dimension.choices:
                raise BeliefError(belief.dimension, f"{choice!r} is not one of {dimension.describe()}")
        preferred = dict.fromkeys(belief.choices, 0.0)
        return Choice(quantity=setting(dimension.name), preferred=preferred, other=_OTHER_CHOICE)
    if belief.choices:
        raise BeliefError(belief.dimension, "it is a number: give around: VALUE, or from: LOW and to: HIGH")
    assert dimension.low is not None and dimension.high is not None
    for value in (belief.around, belief.low, belief.high):
        if value is not None and not dimension.low <= value <= dimension.high:
            raise BeliefError(belief.dimension, f"{value:g} is outside its range {dimension.describe()}")
    quantity = setting(dimension.name, low=dimension.low, high=dimension.high, log=dimension.log)
    width = dimension.span
    if belief.around is not None:
        return near(quantity, belief.around, belief.spread or _DEFAULT_SPREAD * width)
    if belief.low is not None and belief.high is not None:
        return between(quantity, belief.low, belief.high, _EDGE * width)
    if belief.low is not None:
        return at_least(quantity, belief.low, _EDGE * width)
    assert belief.high is not None
    return at_most(quantity, belief.high, _EDGE * width)
