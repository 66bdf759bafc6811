"""Steering: who proposes the settings of a search and who stops its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.pipeline.plan import Plan

if TYPE_CHECKING:
    from nbt.search.guide import Guide
    from nbt.search.learned import Learned
    from nbt.search.pruner import Pruner
    from nbt.search.space import Space
    from nbt.search.target import Target


@dataclass(frozen=True, eq=False)
class Steering:
    """Who proposes settings and who stops trials.

    Attributes:
        pruner: Who stops trials.
        guide: Who guides the proposals; plain TPE makes them when None.
    """

    pruner: Pruner
    guide: Guide | None

    def arguments(self, space: Space) -> dict[str, Any]:
        """Returns what the brain needs of it."""
        from nbt.search.guided import recommend
        from nbt.search.learned import sampler

        if self.guide is None:
            return {"pruner": self.pruner}
        guide = self.guide
        return {
            "pruner": self.pruner,
            "sampler": lambda seed: sampler(guide, seed),
            "recommended": [("profile and experience", recommend(guide, space))],
        }


def learn(folder: str | Path | None, space: Space) -> Learned:
    """Returns what recorded tables say; see `nbt.pipeline.search`."""
    from nbt.search.experience_folder import load_experience
    from nbt.search.learned import Learned

    return Learned(load_experience(folder, space))


def steer(plan: Plan, target: Target) -> Steering:
    """Returns who steers the search for a target."""
    from nbt.search.pruner import make_pruner

    length, learned = plan.config.epochs, plan.learned
    if plan.pruner == "fit" and learned is not None:
        pruner = learned.pruner(target, length=length, seed=plan.config.seed)
    else:
        pruner = make_pruner(plan.pruner, length)
    guided = plan.heuristics and learned is not None
    return Steering(pruner, learned.guide(target, plan.space) if guided and learned is not None else None)
