"""Measures of how well pretrained weights fit a target, as pure functions, and the fit profile built from them.

The measures depend only on NumPy and SciPy; functions that run a network are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported eagerly, because modules with the same name as their function would otherwise shadow it.
from nbt.fit.cka import linear_cka
from nbt.fit.emd import emd_similarity
from nbt.fit.fit_profile import LAYER_COLUMNS, OPTIONAL_MEASURES, FitProfile
from nbt.fit.gbc import gbc
from nbt.fit.h_score import h_score
from nbt.fit.knn import knn_accuracy
from nbt.fit.leep import leep, nce, nleep
from nbt.fit.logme import logme
from nbt.fit.ridge import ridge_probe_accuracy
from nbt.fit.transrate import transrate

if TYPE_CHECKING:
    from nbt.fit.profile_builder import profile_fit
    from nbt.fit.source_means import source_class_means

__all__ = [
    "LAYER_COLUMNS",
    "OPTIONAL_MEASURES",
    "FitProfile",
    "emd_similarity",
    "gbc",
    "h_score",
    "knn_accuracy",
    "leep",
    "linear_cka",
    "logme",
    "nce",
    "nleep",
    "profile_fit",
    "ridge_probe_accuracy",
    "source_class_means",
    "transrate",
]

_LAZY_IMPORTS = {"profile_fit": "nbt.fit.profile_builder", "source_class_means": "nbt.fit.source_means"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'nbt.fit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
