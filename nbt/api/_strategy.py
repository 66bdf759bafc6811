"""SearchStrategy: the prior surrogate and the pruner of a search."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._prepared_search import PreparedSearch
from nbt.report.formatting import pluralise

if TYPE_CHECKING:
    from nbt.tuning.pruners.base import Pruner
    from nbt.tuning.relative_cost import CostModel
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.candidates import CandidateRecord
    from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
    from nbt.tuning.target import Target
    from nbt.tuning.transferred_priors import TransferredPriors

_log = logging.getLogger("nbt")


@dataclass(frozen=True, eq=False)
class SearchStrategy:
    """How a search proposes settings and stops trials.

    Attributes:
        pruner: Rule that stops trials early.
        surrogate: Prior surrogate that guides the proposals; plain TPE proposes settings when None.
        experience: Which recorded tables proposals and pruner use, as text; "" if they need none.
    """

    pruner: Pruner
    surrogate: PriorSurrogate | None
    experience: str = ""

    def arguments(self, space: Space, cost_model: CostModel) -> dict[str, Any]:
        """Returns the keyword arguments of `SearchController` for costs, sampler, pruner and recommended settings.

        Args:
            space: The search space.
            cost_model: Estimates the cost of trials.
        """
        from nbt.tuning.samplers.recommendation import recommend_settings
        from nbt.tuning.transferred_priors import make_sampler
        from nbt.tuning.tuned_recipes import TUNED_DEFAULT, searched_tuned_default

        if self.surrogate is None:
            return {"pruner": self.pruner, "cost_model": cost_model}
        surrogate = self.surrogate
        tuned = searched_tuned_default(surrogate.target.epochs, equal_lengths=space.epochs is None)
        return {
            "pruner": self.pruner,
            "cost_model": cost_model,
            "sampler": lambda seed: make_sampler(surrogate, seed, cost_model=cost_model),
            "recommended": [
                (TUNED_DEFAULT, tuned),
                ("profile and experience", recommend_settings(surrogate, space)),
            ],
        }


def load_transferred_priors(folder: str | Path | None, space: Space) -> TransferredPriors:
    """Returns the models of the recorded tables in a folder; warns if the folder has too few runs for a model.

    Args:
        folder: Folder of recorded tables; the tables shipped with nbt when None.
        space: The search space, with the dimensions that do not apply to the task.

    Raises:
        UsageError: The folder does not exist, or a table in it cannot be used for the space.
    """
    from nbt.tuning.experience.folder import load_experience
    from nbt.tuning.surrogate.experience_model import MIN_SETTINGS
    from nbt.tuning.transferred_priors import TransferredPriors

    tables = load_experience(folder, space)
    settings = sum(len({run.settings for run in table.runs}) for table in tables)
    if folder is not None and tables and settings < MIN_SETTINGS:
        found = f"{pluralise(len(tables), 'recorded table')} with {pluralise(settings, 'setting')}"
        needed = f"a model needs {MIN_SETTINGS} settings"
        _log.warning("--experience %s: %s, but %s; without experience, the priors alone decide", folder, found, needed)
    return TransferredPriors(tables, is_cached=True)


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
    if transferred_priors is None:
        return SearchStrategy(pruner, None)
    folder = prepared.options.experience
    if not prepared.heuristics:
        return SearchStrategy(pruner, None, _experience_text(transferred_priors, folder, "to stop trials only"))
    beliefs = belief_priors(parse_beliefs(prepared.options.beliefs), prepared.space)
    if candidates:
        targets = {"": target, **(others or {})}
        surrogate = transferred_priors.backbone_surrogate(targets, candidates, prepared.space, beliefs=beliefs)
    else:
        surrogate = transferred_priors.surrogate(target, prepared.space, beliefs=beliefs)
    return SearchStrategy(pruner, surrogate, _experience_text(transferred_priors, folder, surrogate.similarity_text))


def _experience_text(models: TransferredPriors, folder: str | None, remark: str) -> str:
    """Returns which recorded tables a search uses.

    Args:
        models: Models of the tables.
        folder: `--experience`, or None.
        remark: What else there is to say of them.
    """
    if models.experience is None:
        return "no recorded tables"
    tables = pluralise(len(models.experience.headers), "recorded table")
    return f"{tables} {'that come with nbt' if folder is None else f'of {folder}'}; {remark}"
