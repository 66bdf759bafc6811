"""Prior on the injection of a teacher's weights (TLI)."""

from __future__ import annotations

import numpy as np

from nbt.tuning.priors.measures import TLI_SIMILARITY
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import Choice, setting
from nbt.tuning.target import Target

_INIT = setting("init")


@prior(
    source="Czyzewski 2021, arXiv 2101.02757, and 67 pairs in arXiv 2212.13970: gain and similarity correlate 0.83",
    dimensions=("init",),
    needs=(TLI_SIMILARITY,),
    strength=0.3,
)
def inject_by_similarity(target: Target) -> PriorSuggestion | None:
    """Injects the weights of a teacher whose architecture is similar."""
    # Importing a module of `nbt.transfer` imports torch.
    from nbt.transfer.injection.thresholds import HARMFUL_SIMILARITY, MIN_SAFE_SIMILARITY

    similarity = target.tli_similarity or 0.0
    slope = float(np.clip(4.0 * (similarity - MIN_SAFE_SIMILARITY), -1.0, 1.0))
    if abs(slope) < 0.1:
        return None
    init = "inject" if slope > 0 else "pretrained"
    return PriorSuggestion(
        (Choice(quantity=_INIT, preferred={init: 0.0}, other=abs(slope)),),
        f"TLI similarity {similarity:.2f}; of 67 published pairs, those below {HARMFUL_SIMILARITY:g} lost accuracy",
    )
