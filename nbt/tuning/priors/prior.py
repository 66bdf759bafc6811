"""Types of a prior, which is a rule that suggests settings for a target, and of its suggestion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbt.settings import TransferSettings
from nbt.tuning.priors.statement import Statement
from nbt.tuning.target import Target


@dataclass(frozen=True)
class PriorSuggestion:
    """The suggestion of a prior for a target.

    Attributes:
        statements: What good settings are like, at least one statement.
        because: Clause with the facts and measures behind the statements.
    """

    statements: tuple[Statement, ...]
    because: str

    @property
    def words(self) -> str:
        """The suggestion as a clause for reports."""
        return f"{' and '.join(statement.text for statement in self.statements)}: {self.because}"

    def log_density(self, settings: TransferSettings) -> float:
        """Returns the log density of settings, up to a constant: the sum over the statements."""
        return sum([statement.log_density(settings) for statement in self.statements])


Rule = Callable[[Target], PriorSuggestion | None]


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A rule that suggests settings for a target.

    Before any trial, one standard deviation of the log density over random settings counts as `strength` units of the
    logit score (`nbt.tuning.surrogate.logit_score`). `nbt.tuning.surrogate.prior_surrogate` updates that weight with
    the trials of the study.

    Attributes:
        name: Name in reports.
        source: Reference that the rule is based on.
        dimensions: Settings that the rule applies to; it is considered if the search varies any of them.
        needs: Measures without which the prior is not active, see `nbt.tuning.priors.measures`.
        strength: Expected weight, in units of the logit score per standard deviation of the log density over random
            settings.
        suggest: Function that returns the suggestion for a target, or None if the target gives no reason for one.
    """

    name: str
    source: str
    dimensions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    strength: float
    suggest: Rule


def prior(
    *, source: str, dimensions: tuple[str, ...], strength: float, needs: tuple[str, ...] = ()
) -> Callable[[Rule], Prior]:
    """Returns a decorator that makes a prior of a rule; the rule's name, with spaces, is the name of the prior.

    The arguments are those of `Prior`.
    """

    def declare(rule: Rule) -> Prior:
        name = rule.__name__.replace("_", " ")
        return Prior(name=name, source=source, dimensions=dimensions, needs=needs, strength=strength, suggest=rule)

    return declare
