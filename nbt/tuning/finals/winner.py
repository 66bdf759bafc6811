"""Selection among the finalists: which of them need another seed, and which one is the best."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from nbt.metrics import DEFAULT_METRIC, METRICS, Metric
from nbt.tuning.finals.plan import is_cheaper
from nbt.tuning.intervals import Interval, ValidationDesign
from nbt.tuning.run_scores import RunScore, score_difference

CHEAPER_REASON = "Nothing is better than"
"""Beginning of the sentence of `describe_comparison` that says why a cheaper or simpler recipe is recommended."""

MIN_SEEDS = 3
"""Number of seeds before the first decision; intervals of fewer seeds are too wide."""


@dataclass(frozen=True, kw_only=True)
class SelectionState:
    """The state of the selection.

    Attributes:
        rounds: Number of seeds that every active finalist has to run; once finished, the number that was compared.
        active: Names of the finalists that are not dropped, in the given order.
        dropped: Name of each dropped finalist -> reason.
        leader: The recommended finalist if the selection is finished, else None.
        finished: Whether no more runs are needed: `leader` is None then if all finalists failed.
        best: The finalist with the best mean if the selection is finished. A cheaper or simpler finalist is recommended
            instead if it is as good.
    """

    rounds: int
    active: tuple[str, ...]
    dropped: Mapping[str, str]
    leader: str | None = None
    finished: bool = False
    best: str | None = None


def count_looks(max_seeds: int) -> int:
    """Returns the number of rounds after which a decision is made."""
    return max(1, max_seeds - MIN_SEEDS + 1)


def select_finalist(
    scores: Mapping[str, Sequence[RunScore]],
    *,
    default: str,
    max_seeds: int,
    failed: Mapping[str, str] | None = None,
    design: ValidationDesign | None = None,
    costs: Mapping[str, float] | None = None,
    simpler: Collection[str] = (),
) -> SelectionState:
    """Returns the state of the selection after the given runs.

    A decision is made after every round, from `MIN_SEEDS` rounds on or at `max_seeds` if that is lower. A finalist is
    dropped if the 95 % interval of its paired difference to the leader is below 0. The selection is finished when this
    holds for all finalists but the leader, or at `max_seeds` rounds. The default recipe is never dropped, so it has as
    many seeds as the leader, and the selection continues while its interval includes 0. Among equal means the default
    recipe leads, then the finalist with the lower loss.

    If the interval of the paired difference between the leader and the default recipe includes 0, the cheapest finalist
    is recommended that is clearly cheaper than the leader, cannot be distinguished from it, and has a mean of about one
    standard error below at most (one-standard-error rule; Breiman et al. 1984, "Classification and Regression Trees").
    By the same rule, simpler finalists are preferred to all others, also to a leader that is better than the default
    recipe.

    Args:
        scores: Name of each finalist -> its runs by round; round i of all finalists has the same seed and split.
        default: Name of the default recipe.
        max_seeds: Maximum number of seeds, at least 1.
        failed: Name of each finalist that cannot run -> reason.
        design: How the runs are validated. The comparison with the default recipe, which the verdict states, is
            corrected for the number of comparisons; that with others only saves runs and is not. None gives Student's
            t intervals over the seeds.
        costs: Name of each finalist -> relative cost of its training; None recommends the leader.
        simpler: Names of finalists that are recommended if they are as good, whatever they cost.
    """
    dropped = dict(failed or {})
    rounds = min(MIN_SEEDS, max_seeds)
    while True:
        active = tuple(name for name in scores if name not in dropped)
        if not active or any(len(scores[name]) < rounds for name in active):
            return SelectionState(rounds=rounds, active=active, dropped=dropped, finished=not active)
        leader = max(active, key=lambda name: _ranking_key(scores[name][:rounds], name == default))
        designs = {
            name: design if default in (name, leader) or design is None else replace(design, comparisons=1)
            for name in active
        }
        worse = {n for n in active if n != leader and _is_worse(scores, n, leader, rounds, designs[n])}
        dropped |= dict.fromkeys(worse - {default}, f"worse than {leader} after {rounds} seeds")
        if worse == set(active) - {leader} or rounds == max_seeds:
            remaining = tuple(name for name in active if name not in dropped)
            equal = [
                name
                for name in remaining
                if name not in worse and _is_close(scores[name][:rounds], scores[leader][:rounds], designs[name])
            ]
            may_be_cheaper = default in remaining and default not in worse
            recommended = _prefer(leader, equal, costs if may_be_cheaper else None, simpler)
            return SelectionState(
                rounds=rounds, active=remaining, dropped=dropped, leader=recommended, finished=True, best=leader
            )
        rounds += 1


def _prefer(leader: str, equal: Sequence[str], costs: Mapping[str, float] | None, simpler: Collection[str]) -> str:
    """Returns the leader, or another finalist that is as good and simpler, or else cheaper.

    Args:
        leader: The finalist with the best mean.
        equal: Names of the finalists that are as good, the leader among them, in the order of the search.
        costs: Name of each finalist -> relative cost; None prefers none for its cost.
        simpler: Names of the simpler finalists.
    """
    if preferred := [name for name in equal if name in simpler]:
        return leader if leader in preferred else preferred[0]
    if costs is None:
        return leader
    cheaper = [name for name in equal if is_cheaper(costs[name], costs[leader])]
    return min(cheaper, key=lambda name: costs[name], default=leader)


def describe_comparison(
    name: str,
    default: str,
    versus_default: Interval | None,
    metric: Metric = METRICS[DEFAULT_METRIC],
    reference: float = 0.0,
    *,
    cheaper_than: str | None = None,
    costs: Mapping[str, float] | None = None,
    needs_no_weights: bool = False,
    diverged: int = 0,
) -> str:
    """Returns a sentence that compares the recommended finalist with the default recipe.

    Args:
        name: Name of the recommended finalist.
        default: Name of the default recipe.
        versus_default: Paired difference to the default recipe in score; None if the default recipe has no runs.
        metric: The metric of the study.
        reference: Mean score of the default recipe.
        cheaper_than: Name of the finalist with the best mean if a cheaper one is recommended instead, the default
            recipe if the best one is cheaper than that, else None.
        costs: Name of each finalist -> relative cost of its training; needed with `cheaper_than`.
        needs_no_weights: Whether the finalist is recommended instead of the best one because it trains from scratch.
        diverged: Number of runs of the default recipe that diverged.
    """
    is_better = versus_default is not None and versus_default.low is not None and versus_default.low > 0
    reason = ""
    if needs_no_weights:
        reason = (
            f" {CHEAPER_REASON} {name} beyond noise. It is recommended because it trains from scratch, and the "
            "pretrained weights have no advantage over random ones."
        )
    elif cheaper_than is not None and costs is not None:
        reason = _cost_reason(name, default, cheaper_than, costs[name] / costs[cheaper_than], is_better)
    if name == default:
        return reason.strip() or f"The {default} is recommended: no setting that was found has a better mean."
    if versus_default is None:
        return f"{_capitalise_first(name)} is recommended; the {default} could not be run beside it."
    points = f"{metric.format_difference(versus_default.mean, reference)} {metric.difference_unit}"
    if versus_default.low is None or versus_default.high is None:
        return f"{_capitalise_first(name)} cannot be distinguished from the {default} by one seed ({points})."
    ends = [metric.format_difference(end, reference) for end in (versus_default.low, versus_default.high)]
    bounds = f"{' to '.join(ends if metric.higher_is_better else reversed(ends))}, {versus_default.n} seeds"
    if is_better:
        text = f"{_capitalise_first(name)} is better than the {default} by {points[1:]} (95 % interval {bounds})."
        failed = f" The {default} diverged in {diverged} of these runs, which count as the worst." if diverged else ""
        return f"{text}{failed}{reason}"
    result = f"cannot be distinguished from the {default}: {points} (95 % interval {bounds})."
    return f"{_capitalise_first(name)} {result}{reason}"


def _cost_reason(name: str, default: str, cheaper_than: str, share: float, is_better: bool) -> str:
    """Returns the sentence that says why a cheaper finalist is recommended; "" if it is the best one anyway.

    Args:
        name: Name of the recommended finalist.
        default: Name of the default recipe.
        cheaper_than: The finalist that is not recommended because it costs more.
        share: Cost of the recommended finalist relative to that one.
        is_better: Whether the recommended finalist is better than the default recipe beyond noise.
    """
    if not is_better:
        return (
            f" {CHEAPER_REASON} the {default} beyond noise, so {name if name != default else f'the {name}'} is "
            f"recommended because it is cheaper: about {100 * share:.0f} % of the training time of "
            f"{cheaper_than if cheaper_than != default else f'the {default}'}."
        )
    if cheaper_than == default:
        return ""
    return (
        f" {CHEAPER_REASON} {name} beyond noise, and it is cheaper than {cheaper_than}, whose mean is higher: about "
        f"{100 * share:.0f} % of its training time."
    )


def _is_worse(
    scores: Mapping[str, Sequence[RunScore]], name: str, leader: str, rounds: int, design: ValidationDesign | None
) -> bool:
    """Returns whether the 95 % interval of the paired difference to the leader is below 0."""
    if rounds < MIN_SEEDS:
        return False
    high = score_difference(scores[name][:rounds], scores[leader][:rounds], design).high
    return high is not None and high < 0


def _is_close(scores: Sequence[RunScore], best: Sequence[RunScore], design: ValidationDesign | None) -> bool:
    """Returns whether a mean is below the best one by at most a quarter of the width of their 95 % interval.

    This is one standard error of many runs, and more of few runs.
    """
    difference = score_difference(scores, best, design)
    if difference.low is None or difference.high is None:
        return difference.mean >= 0
    return difference.mean >= -(difference.high - difference.low) / 4


def _ranking_key(scores: Sequence[RunScore], is_default: bool) -> tuple[float, bool, float]:
    """Returns the mean score, whether it is the default recipe, and the negative mean loss."""
    # Rounded so that the order of summation does not matter.
    return round(fmean(score.value for score in scores), 9), is_default, -fmean(score.loss for score in scores)


def _capitalise_first(text: str) -> str:
    return text[:1].upper() + text[1:]
