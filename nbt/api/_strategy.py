"""SearchStrategy: the prior surrogate and the pruner of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._prepared_search import PreparedSearch

if TYPE_CHECKING:
    from nbt.tuning.pruners.base import Pruner
    from nbt.tuning.relative_cost import CostModel
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.candidates import CandidateRecord
    from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
    from nbt.tuning.target import Target
    from nbt.tuning.transferred_priors import TransferredPriors


@dataclass(frozen=True, eq=False)
class SearchStrategy:
    """How a search proposes settings and stops trials.

    Attributes:
        pruner: Rule that stops trials early.
        surrogate: Prior surrogate that guides the proposals; plain TPE proposes settings when None.
    """

    pruner: Pruner
    surrogate: PriorSurrogate | None

    def arguments(self, space: Space, cost_model: CostModel) -> dict[str, Any]:
        """Returns the keyword arguments of `SearchController` for costs, sampler, pruner and recommended settings.

        Args:
            space: The search space.
            cost_model: Estimates the cost of trials.
        """
        from nbt.tuning.samplers.recommendation import recommend_settings
        from nbt.tuning.transferred_priors import make_sampler
        from nbt.tuning.tuned_recipes import TUNED_DEFAULT, tuned_default

        if self.surrogate is None:
            return {"pruner": self.pruner, "cost_model": cost_model}
        surrogate = self.surrogate
        # Where lengths are searched, the tuned default has its own, relative to the default recipe.
        length = surrogate.target.epochs if space.epochs is None else 2 * surrogate.target.epochs
        return {
            "pruner": self.pruner,
            "cost_model": cost_model,
            "sampler": lambda seed: make_sampler(surrogate, seed, cost_model=cost_model),
            "recommended": [
                (TUNED_DEFAULT, tuned_default(length)),
                ("profile and experience", recommend_settings(surrogate, space)),
            ],
        }


def load_transferred_priors(folder: str | Path | None, space: Space) -> TransferredPriors:
    """Returns the models of the recorded tables in a folder.

    Args:
        folder: Folder of recorded tables; the tables shipped with nbt when None.
        space: The search space, with the dimensions that do not apply to the task.

    Raises:
        UsageError: The folder does not exist, or a table in it cannot be used for the space.
    """
    from nbt.tuning.experience.folder import load_experience
    from nbt.tuning.transferred_priors import TransferredPriors

    return TransferredPriors(load_experience(folder, space), is_cached=True)


def make_strategy(
    prepared: PreparedSearch,
    target: Target,
    others: Mapping[str, Target] | None = None,
    candidates: Sequence[CandidateRecord] = (),
) -> SearchStrategy:
    """Returns the strategy of a search.

    Args:
        prepared: The checked arguments of the search.
        target: Description of the task, on which the priors depend.
        others: The same for other backbones by the setting `backbone`; with one backbone None or empty.
        candidates: What is known of the backbones, the reference first; empty with one backbone.
    """
    from nbt.settings.belief import parse_beliefs
    from nbt.tuning.priors.beliefs import belief_priors
    from nbt.tuning.pruners.base import make_pruner

    length, transferred_priors = prepared.config.epochs, prepared.transferred_priors
    equal = prepared.space.epochs is None
    if prepared.pruner == "fit" and transferred_priors is not None:
        pruner = transferred_priors.pruner(
            target, length=length, seed=prepared.config.seed, equal_lengths=equal, others=others
        )
    else:
        pruner = make_pruner(prepared.pruner, length, prepared.config.metric, equal_lengths=equal)
    if not prepared.heuristics or transferred_priors is None:
        return SearchStrategy(pruner, None)
    beliefs = belief_priors(parse_beliefs(prepared.options.beliefs), prepared.space)
    if candidates:
        targets = {"": target, **(others or {})}
        surrogate = transferred_priors.backbone_surrogate(targets, candidates, prepared.space, beliefs=beliefs)
    else:
        surrogate = transferred_priors.surrogate(target, prepared.space, beliefs=beliefs)
    return SearchStrategy(pruner, surrogate)
