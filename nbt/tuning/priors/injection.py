"""Priors on the injection of a teacher's weights (TLI)."""

from __future__ import annotations

import numpy as np

from nbt.models.teacher import short_teacher_names
from nbt.tuning.priors.measures import TLI_SIMILARITIES, TLI_SIMILARITY
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Choice, Quantity, setting
from nbt.tuning.target import Target

_INIT = setting("init")
_SOURCE = "Czyzewski 2021, arXiv 2101.02757, and 67 pairs in arXiv 2212.13970: gain and similarity correlate 0.83"
_LOSS_PER_SIMILARITY = 4.0
# Low, because near and far teachers gained the same in `studies/injection.py`.
_STRENGTH = 0.1


@prior(
    source=_SOURCE,
    dimensions=("init",),
    needs=(TLI_SIMILARITY,),
    strength=_STRENGTH,
)
def inject_by_similarity(target: Target) -> PriorSuggestion | None:
    """Injects the weights of a teacher whose architecture is similar."""
    # Importing a module of `nbt.transfer` imports torch.
    from nbt.transfer.injection.thresholds import HARMFUL_SIMILARITY, MIN_SAFE_SIMILARITY

    similarity = target.tli_similarity or 0.0
    slope = float(np.clip(_LOSS_PER_SIMILARITY * (similarity - MIN_SAFE_SIMILARITY), -1.0, 1.0))
    if abs(slope) < 0.1:
        return None
    init = "inject" if slope > 0 else "pretrained"
    return PriorSuggestion(
        (Choice(quantity=_INIT, preferred={init: 0.0}, other=abs(slope)),),
        f"TLI similarity {similarity:.2f}; of 67 published pairs, those below {HARMFUL_SIMILARITY:g} lost accuracy",
    )


@prior(source=_SOURCE, dimensions=("teacher",), needs=(TLI_SIMILARITIES,), strength=_STRENGTH)
def inject_the_most_similar(target: Target) -> PriorSuggestion | None:
    """Prefers, of several teachers, those of which the architecture is more similar."""
    similarities = target.tli_similarities or {}
    best = max(similarities, key=lambda name: similarities[name])
    losses = {
        name: min(1.0, _LOSS_PER_SIMILARITY * (similarities[best] - value)) for name, value in similarities.items()
    }
    if max(losses.values()) < 0.1:
        return None
    short = short_teacher_names(list(similarities))
    teacher = Quantity(
        label="teacher", value=lambda settings: short.get(settings.source.teacher, settings.source.teacher)
    )
    # Settings that inject nothing have no teacher, and lose nothing.
    kept = {short[name]: loss for name, loss in losses.items() if loss < 0.1}
    return PriorSuggestion(
        (Choice(quantity=teacher, preferred={"": 0.0, **kept}, other=max(losses.values())),),
        f"the greatest TLI similarity is {similarities[best]:.2f}",
    )
