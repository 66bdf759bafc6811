"""nbt: a search engine for non-binary transfer learning.

The public names are imported on first use, so that `import nbt` is fast.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from nbt._version import __version__
from nbt.errors import with_python_names

if TYPE_CHECKING:
    from nbt.api import load_task, search, train
    from nbt.api._continual import continual
    from nbt.api._evaluate import evaluate
    from nbt.api._export import export
    from nbt.api._predict import predict
    from nbt.fit.profile_builder import profile_fit
    from nbt.inference.model import TransferModel, load_model
    from nbt.search_config import SearchConfig
    from nbt.settings import TransferSettings
    from nbt.training.fine_tune import fine_tune

__all__ = [
    "SearchConfig",
    "TransferModel",
    "TransferSettings",
    "__version__",
    "continual",
    "evaluate",
    "export",
    "fine_tune",
    "load_model",
    "load_task",
    "predict",
    "profile_fit",
    "search",
    "train",
]

_LAZY_IMPORTS = {
    "SearchConfig": "nbt.search_config",
    "TransferModel": "nbt.inference.model",
    "TransferSettings": "nbt.settings",
    "continual": "nbt.api",
    "evaluate": "nbt.api",
    "export": "nbt.api",
    "fine_tune": "nbt.training.fine_tune",
    "load_model": "nbt.inference.model",
    "load_task": "nbt.api",
    "predict": "nbt.api",
    "profile_fit": "nbt.fit.profile_builder",
    "search": "nbt.api",
    "train": "nbt.api",
}


_SUBPACKAGES = ("fit", "transfer")


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"nbt.{name}")
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'nbt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)
    if not inspect.isfunction(value):
        return value
    # The wrapper is found again by its name, as pickle does it.
    function = with_python_names(value)
    function.__module__, function.__qualname__ = __name__, name
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted(__all__)
