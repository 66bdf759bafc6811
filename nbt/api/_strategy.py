"""SearchStrategy: who proposes the settings of a search and who stops its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._prepared_search import PreparedSearch

if TYPE_CHECKING:
    from nbt.tuning.pruners.base import Pruner
    from nbt.tuning.space.space import Space
    from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
    from nbt.tuning.target import Target
    from nbt.tuning.transferred_priors import TransferredPriors


@dataclass(frozen=True, eq=False)
class SearchStrategy:
    """Who proposes settings and who stops trials.

    Attributes:
        pruner: Who stops trials.
        guide: Who guides the proposals; plain TPE makes them when None.
    """

    pruner: Pruner
    surrogate: PriorSurrogate | None

    def arguments(self, space: Space) -> dict[str, Any]:
        """Returns what the controller needs of it."""
        from nbt.tuning.samplers.bayesian import recommend_settings
        from nbt.tuning.transferred_priors import make_sampler

        if self.surrogate is None:
            return {"pruner": self.pruner}
        surrogate = self.surrogate
        return {
            "pruner": self.pruner,
            "sampler": lambda seed: make_sampler(surrogate, seed),
            "recommended": [("profile and experience", recommend_settings(surrogate, space))],
        }


def load_transferred_priors(folder: str | Path | None, space: Space) -> TransferredPriors:
    """Returns what recorded tables say; see `nbt.api.search`."""
    from nbt.tuning.experience.folder import load_experience
    from nbt.tuning.transferred_priors import TransferredPriors

    return TransferredPriors(load_experience(folder, space))


def make_strategy(prepared: PreparedSearch, target: Target) -> SearchStrategy:
    """Returns who steers the search for a target."""
    from nbt.tuning.pruners.base import make_pruner

    length, transferred_priors = prepared.config.epochs, prepared.transferred_priors
    if prepared.pruner == "fit" and transferred_priors is not None:
        pruner = transferred_priors.pruner(target, length=length, seed=prepared.config.seed)
    else:
        pruner = make_pruner(prepared.pruner, length)
    guided = prepared.heuristics and transferred_priors is not None
    return SearchStrategy(
        pruner,
        transferred_priors.surrogate(target, prepared.space) if guided and transferred_priors is not None else None,
    )
