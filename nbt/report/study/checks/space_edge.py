"""NBT203: the best settings are at an edge of the search space."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nbt.checks import Check, CheckResult
from nbt.errors import UsageError
from nbt.report.formatting import format_number, join_words
from nbt.report.study.recommendation import current_recommendation
from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.space.dimension import Dimension, ParamValue
from nbt.tuning.space.space import Space, stored_space
from nbt.tuning.storage.records import StudyRecord

_MARGIN = 0.01
"""Share of a range that counts as its edge."""


class SpaceEdge(Check[StudyRecord]):
    """Compares the recommended settings with the bounds of the search space.

    A bound that the setting itself has, such as 0 and 1 of a share, is not an edge: nothing lies beyond it.
    """

    code = "NBT203"
    title = "best settings at an edge of the space"
    severity = "info"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for settings that are not neutral and lie within 1 % of a bound that could be moved."""
        recommendation = current_recommendation(subject)
        if recommendation is None:
            return self.not_applicable("The study has no recommendation yet.")
        if recommendation.is_default:
            return self.not_applicable("The recommendation is the default recipe, which the space does not limit.")
        space = stored_space(subject.config.space, subject.config.space_hash, subject.config.teacher)
        if space is None:
            return self.not_applicable(f"The space {subject.config.space} is not available or was changed.")
        try:
            edges = list(_edges(space, recommendation.settings))
        except UsageError as error:
            return self.not_applicable(f"The settings are not part of the space: {error}.")
        if not edges:
            return self.passed(f"No setting of {recommendation.name} is at a bound that could be moved.")
        return self.failed(
            f"In {recommendation.name}, {join_words([edge for _, edge in edges])}.",
            f"Copy the space to a file, move the bounds of {join_words(list(dict.fromkeys(n for n, _ in edges)))}, and "
            "search with --space FILE; nbt spaces shows the present bounds.",
            count=len(edges),
            examples=(edge for _, edge in edges),
        )


def _edges(space: Space, settings: TransferSettings) -> Iterator[tuple[str, str]]:
    """Yields the dimension of each parameter at an edge, with a clause on it.

    Raises:
        UsageError: The space does not contain the settings.
    """
    params = space.params(settings)
    for dimension in space.dimensions:
        for name in dimension.parameters:
            bound = _bound_reached(dimension, params[name])
            if bound is not None:
                side = "lower" if bound == dimension.low else "upper"
                value = format_number(params[name])
                yield dimension.name, f"{name} = {value} is at its {side} bound {format_number(bound)}"


def _bound_reached(dimension: Dimension, value: ParamValue) -> float | None:
    """Returns the bound that a parameter has reached; None inside the range, at a natural bound or if neutral."""
    if dimension.kind == "categorical" or value == dimension.neutral or dimension.low is None or dimension.high is None:
        return None
    low, high, at = (_scaled(dimension, float(number)) for number in (dimension.low, dimension.high, value))
    margin = _MARGIN * (high - low)
    rule = SETTINGS[dimension.name].rule
    if at <= low + margin and dimension.low > rule.low and dimension.low != rule.above:
        return dimension.low
    if at >= high - margin and dimension.high < rule.high:
        return dimension.high
    return None


def _scaled(dimension: Dimension, value: float) -> float:
    return math.log(value) if dimension.log else value
