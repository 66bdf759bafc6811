"""The advantage of pretrained weights over random ones, on the scale of a random network's error."""

from __future__ import annotations

import math

# Standard errors of the difference of two probes between which it is expected, and that a clear advantage exceeds.
_CLEAR = 2.0
# An advantage below this one is none.
_NEGLIGIBLE = 0.1
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


def is_clear_advantage(pretrained: float, random: float, images: float) -> bool:
    """Returns whether a probe of pretrained features is better than one of random ones by two standard errors.

    Args:
        pretrained: As in `advantage`.
        random: As in `advantage`.
        images: Number of images on which each accuracy was measured.
    """
    return pretrained - random > _CLEAR * _standard_error(pretrained, random, images)


def is_no_advantage(pretrained: float, random: float, images: float) -> bool:
    """Returns whether pretraining removes less than a tenth of a random network's errors, within two standard errors.

    The arguments are those of `is_clear_advantage`. Where neither holds, as with few images or a probe that classifies
    nearly all of them with random weights, too, the probes do not tell.
    """
    highest = pretrained + _CLEAR * _standard_error(pretrained, random, images)
    return advantage(highest, random) < _NEGLIGIBLE and not is_clear_advantage(pretrained, random, images)


def _standard_error(pretrained: float, random: float, images: float) -> float:
    """Returns the standard error of the difference of two probes, as of independent binomial samples.

    Two correct and two wrong predictions are added (Agresti and Coull 1998). Both probes classify the same images, so
    that the error of their difference is hardly larger.
    """
    shares = [(accuracy * images + 2.0) / (images + 4.0) for accuracy in (pretrained, random)]
    variance = sum(share * (1.0 - share) for share in shares) / (images + 4.0)
    return math.sqrt(variance)
