"""Race: which finalists need another seed, and which is the best. Pure decisions over accuracies, no runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nbt.tuning.intervals import Interval, paired_interval

MIN_SEEDS = 3
"""Seeds before anything is decided; fewer give no interval worth the name."""


@dataclass(frozen=True)
class Score:
    """One final run: validation accuracy, 0 ... 1, and validation loss."""

    accuracy: float
    loss: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SelectionState:
    """Where a race is.

    Attributes:
        rounds: Seeds that every one in `active` needs: to have run them all, or, once it is over, to be compared on.
        active: Who still runs, in the order given.
        dropped: Who does not, and why.
        leader: The best of `active` once all have run `rounds` seeds, else None.
        over: Nothing more has to run: `leader` is the recommendation.
    """

    rounds: int
    active: tuple[str, ...]
    dropped: Mapping[str, str]
    leader: str | None = None
    finished: bool = False


def select_finalist(
    scores: Mapping[str, Sequence[Score]], *, default: str, max_seeds: int, failed: Mapping[str, str] | None = None
) -> SelectionState:
    """Replays a race over the rounds that have been run.

    From the third seed on (or at the bound, where that is lower), after each round: a candidate whose paired
    difference to the leader is negative with its whole 95 % interval is dropped; when every other one is, or the
    bound is reached, the race is over. The default recipe is never dropped, so it has as many seeds as the leader,
    and the race goes on while it may be as good. Of equal means the default recipe leads, then the lower loss.

    Args:
        scores: Finalist -> its runs by round; round i of all candidates has the same seed and split.
        default: Name of the default recipe among them.
        max_seeds: The most seeds, 1 or more.
        failed: Candidates that cannot run, and why.
    """
    dropped = dict(failed or {})
    rounds = min(MIN_SEEDS, max_seeds)
    while True:
        active = tuple(name for name in scores if name not in dropped)
        if not active or any(len(scores[name]) < rounds for name in active):
            return SelectionState(rounds=rounds, active=active, dropped=dropped, finished=not active)
        leader = max(active, key=lambda name: _ranking_key(scores[name][:rounds], name == default))
        worse = {name for name in active if name != leader and _is_worse(scores, name, leader, rounds)}
        dropped |= dict.fromkeys(worse - {default}, f"worse than {leader} after {rounds} seeds")
        if worse == set(active) - {leader} or rounds == max_seeds:
            still = tuple(name for name in active if name not in dropped)
            return SelectionState(rounds=rounds, active=still, dropped=dropped, leader=leader, finished=True)
        rounds += 1


def describe_comparison(name: str, default: str, versus_default: Interval | None) -> str:
    """Returns how the recommended candidate compares to the default recipe, in a sentence.

    Args:
        name: The recommended candidate.
        default: Name of the default recipe.
        versus_default: Paired difference to it in accuracy; None where it has no run.
    """
    if name == default:
        return f"The {default} is recommended: no setting that was found has a better mean."
    if versus_default is None:
        return f"{_capitalise_first(name)} is recommended; the {default} could not be run beside it."
    points = f"{100 * versus_default.mean:+.1f} points"
    if versus_default.low is None or versus_default.high is None:
        return f"{_capitalise_first(name)} cannot be told apart from the {default} by one seed ({points})."
    shown = f"{100 * versus_default.low:+.1f} to {100 * versus_default.high:+.1f}, {versus_default.n} seeds"
    if versus_default.low > 0:
        return f"{_capitalise_first(name)} is better than the {default} by {points[1:]} (95 % interval {shown})."
    return f"{_capitalise_first(name)} cannot be told apart from the {default}: {points} (95 % interval {shown})."


def _is_worse(scores: Mapping[str, Sequence[Score]], name: str, leader: str, rounds: int) -> bool:
    """Tells whether the paired difference to the leader is clearly negative."""
    if rounds < MIN_SEEDS:
        return False
    mine, best = ([score.accuracy for score in scores[candidate_name][:rounds]] for candidate_name in (name, leader))
    high = paired_interval(mine, best).high
    return high is not None and high < 0


def _ranking_key(scores: Sequence[Score], is_default: bool) -> tuple[float, bool, float]:
    # Rounded, so that equal sums in another order are equal means.
    return round(fmean(score.accuracy for score in scores), 9), is_default, -fmean(score.loss for score in scores)


def _capitalise_first(text: str) -> str:
    return text[:1].upper() + text[1:]
