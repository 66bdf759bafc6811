"""The advantage of pretrained weights over random ones, on the scale of a random network's error."""

from __future__ import annotations

# An error below a tenth of a per cent is within the noise of any sample that a profile measures.
_MIN_ERROR = 1e-3


def advantage(pretrained: float, random: float) -> float:
    """Returns the share of a random network's probe error that pretraining removes, at most 1.

    Values of 0 or less mean that the pretrained features are no better than random ones. The advantage says how much
    the weights help on the target; it is not the similarity of the source and the target, for which see
    `nbt.fit.emd.emd_similarity`.

    Args:
        pretrained: Accuracy of a probe on the pretrained features, 0 ... 1.
        random: Accuracy of the same probe on the features of the architecture with random weights, 0 ... 1.
    """
    return (pretrained - random) / max(1.0 - random, _MIN_ERROR)
