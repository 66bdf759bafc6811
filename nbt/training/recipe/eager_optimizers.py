"""PyTorch's optimisers, which here do not import its compiler.

PyTorch wraps some methods of its optimisers so that `torch.compile` leaves them out. The wrappers import the compiler
(`torch._dynamo`) when they are first called, which takes seconds and 100 MB in each process. nbt compiles no training,
so that these classes have the methods without the wrappers. What they compute is the same, bit for bit.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch

_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)

# `step` has a wrapper that also turns off gradients.
_WRAPPED_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _without_compiler(base: type[_Optimizer]) -> type[_Optimizer]:
    """Returns a subclass of a class of optimisers whose methods do not import the compiler."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(base, name)) for name in _WRAPPED_METHODS}
    methods["step"] = torch.no_grad()(inspect.unwrap(base.step))
    return type(base.__name__, (base,), {"__module__": __name__, "__doc__": base.__doc__, **methods})


SGD = _without_compiler(torch.optim.SGD)
Adam = _without_compiler(torch.optim.Adam)
AdamW = _without_compiler(torch.optim.AdamW)
