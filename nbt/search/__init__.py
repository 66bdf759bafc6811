"""The brain: which settings to try next, for how long, and what to recommend. Only this room imports optuna.

The room and the function `nbt.search(...)` share their name, and Python binds the room to it as soon as one of its
modules is imported. So the room can be called, and calling it is calling the function.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Calls `nbt.pipeline.search`, which stands above this room and is therefore found only now."""
        return importlib.import_module("nbt.pipeline").search(*args, **options)


sys.modules[__name__].__class__ = _Room
