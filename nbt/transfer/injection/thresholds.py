"""Similarities below which injection is not known to help, on the scale of `tli_similarity`.

The published thresholds come from 67 pairs of networks in arXiv 2212.13970, with the similarity of the authors' code:
every injection below .35 was worse than random initialisation, most between .35 and .5 gained little, and none above .6
lost. `tli_similarity` correlates .99 with the authors' similarity, and its median is .12 lower; the thresholds are
shifted by this difference. Between similar networks the two agree: the published values for mnasnet and spnasnet, .852
and .729, are .849 and .725 here.
"""

SCALE_DIFFERENCE = 0.12
"""Median of the authors' similarity minus that of `tli_similarity`."""

HARMFUL_SIMILARITY = round(0.35 - SCALE_DIFFERENCE, 2)
"""Similarity below which every published injection was worse than random weights."""

MIN_SAFE_SIMILARITY = round(0.5 - SCALE_DIFFERENCE, 2)
"""Similarity below which injection is not known to help."""
