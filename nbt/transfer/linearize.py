"""Linearised fine-tuning: the first-order expansion of a network around the weights it starts from.

`f(x; w) = f0(x) + J(x) w` with `w = theta - theta0` and the Jacobian `J` fixed at `theta0`, which DLCFT (Shon, Lee, Kim
and Kim, "DLCFT: Deep Linear Continual Fine-Tuning for General Incremental Learning", arXiv 2208.08112) trains in place
of the network: with squared error the loss of every task is then an exact quadratic in `w`. **The equations are derived
from the abstract**; the paper's body and code were not at hand.

One pass in forward mode (`torch.func.jvp`) gives `f0` and `J w` together. What follows from the equations:

- `theta0` stays as it is, and BatchNorm and dropout are in evaluation mode, or J would change from batch to batch.
- Around a head that is 0 every feature of the backbone's tangents is 0: the expansion would silently be a linear probe.
  Such a head is refused. Take a head that was fitted, or the random one that a new layer has.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from nbt.devices import out_of_memory
from nbt.errors import UsageError

# What torch raises where an operation has no forward-mode derivative, or where functional transforms cannot follow it.
_UNSUPPORTED_ERRORS = (NotImplementedError, RuntimeError, TypeError, AttributeError)


class Linearized(nn.Module):
    """`f0(x) + J(x) w` with the weights `w` as a module of their own; made by `linearize`.

    Attributes:
        base: The network at theta0; nothing of it trains or moves.
        w: A module of the same structure whose parameters are w, all 0 at first, so that groups of parameters, depths
            and rates are chosen in it as in the network. Those train that trained in the network; its buffers and
            modes play no part.
    """

    def __init__(self, base: nn.Module, w: nn.Module) -> None:
        super().__init__()
        self.base, self.w = base, w
        self._names = trainable_parameter_names(w)
        self.eval()

    def train(self, mode: bool = True) -> Linearized:
        """Stays in evaluation mode: J is fixed."""
        return super().train(False)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """Maps what the network takes to what it gives, such as logits, (N, C)."""
        own = dict(self.w.named_parameters())
        return first_order(self.base, {name: own[name] for name in self._names}, *inputs)


class FirstOrder(nn.Module):
    """`f(x; theta0) + J(x; theta0) (theta - theta0)` of a model whose own parameters, theta, train as ever.

    The same function as `Linearized`, for code that steps, decays, averages and saves the parameters of a model.

    Attributes:
        base: A copy of the model at theta0; nothing of it trains or moves.
        model: The model; its buffers and modes play no part.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.base = frozen_copy(model)
        self._names = trainable_parameter_names(model)
        self.eval()

    def train(self, mode: bool = True) -> FirstOrder:
        """Stays in evaluation mode: J is fixed."""
        return super().train(False)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """Maps what the model takes to what it gives, such as logits, (N, C)."""
        own, origin = dict(self.model.named_parameters()), dict(self.base.named_parameters())
        return first_order(self.base, {name: own[name] - origin[name] for name in self._names}, *inputs)


def linearize(model: nn.Module, head: nn.Module | None = None) -> Linearized:
    """Returns the first-order expansion of a model around its present weights.

    Args:
        model: In any mode; it is copied and stays as it is. Of `w`, what has `requires_grad` here trains.
        head: Its last layer, to check; `model.head` when None and there is one.

    Raises:
        UsageError: The head is 0 everywhere, so that the expansion would be a linear probe.
    """
    check_head(head if head is not None else getattr(model, "head", None))
    w = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in w.parameters():
            parameter.zero_()
            parameter.grad = None
    return Linearized(frozen_copy(model), w)


def trainable_parameter_names(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the parameters that train now; what stands still later on is still moved."""
    return tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode of which nothing trains."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def first_order(base: nn.Module, moved: Mapping[str, torch.Tensor], *inputs: Any) -> torch.Tensor:
    """Returns `f(x; theta0) + J(x; theta0) v`, once differentiable by v; not by the inputs.

    Args:
        base: The network at theta0, in evaluation mode.
        moved: v, by the names of the parameters that it moves; the others stand still.
        inputs: What the network takes.
    """
    return _FirstOrderFunction.apply(base, tuple(moved), inputs, *moved.values())  # type: ignore[no-any-return]


class _FirstOrderFunction(torch.autograd.Function):
    """One pass in forward mode; the gradient by v is `J' g`, which is an ordinary backward pass at theta0.

    Torch could differentiate the pass in forward mode itself, but it would keep the tangents of every layer, needs
    derivatives of derivatives that some activations do not have, and was not faster (mobilenet_v2: 2.4 against 3.0
    times an ordinary step).
    """

    @staticmethod
    def forward(ctx: Any, base: nn.Module, names: tuple[str, ...], inputs: Any, *moved: torch.Tensor) -> torch.Tensor:
        _load_forward_mode_rules()
        ctx.base, ctx.names, ctx.inputs = base, names, inputs
        ctx.device = moved[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        with torch.no_grad(), _math_attention():
            origin = _detached_parameters(base, names)
            directions = dict(zip(names, moved, strict=True))
            output, change = jvp(partial(_functional_call, base, inputs), (origin,), (directions,))  # type: ignore[misc]
            return output + change  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        enabled, dtype = ctx.autocast
        with torch.enable_grad(), torch.autocast(ctx.device, dtype=dtype, enabled=enabled), _math_attention():
            origin = {
                name: tensor.requires_grad_() for name, tensor in _detached_parameters(ctx.base, ctx.names).items()
            }
            output = _functional_call(ctx.base, ctx.inputs, origin)
        wanted = ctx.needs_input_grad[3:]
        asked = [tensor for tensor, wants in zip(origin.values(), wanted, strict=True) if wants]
        found = iter(torch.autograd.grad(output, asked, gradient, allow_unused=True))
        return None, None, None, *(next(found) if wants else None for wants in wanted)


@cache
def _load_forward_mode_rules() -> None:
    """Has torch load its rules of forward mode, which it does at first use with a warning that is no one's here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


def _detached_parameters(base: nn.Module, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    own = dict(base.named_parameters())
    return {name: own[name].detach() for name in names}


def _functional_call(base: nn.Module, inputs: Any, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    return functional_call(base, parameters, inputs)  # type: ignore[no-any-return]


@contextmanager
def _math_attention() -> Iterator[None]:
    """Has attention written out: only so it has a forward-mode derivative. Its fused forms are left alone elsewhere."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def check_head(head: nn.Module | None) -> None:
    """Checks that an expansion around a head says something of the backbone.

    Raises:
        UsageError: All its weights are 0.
    """
    weights = [] if head is None else [parameter for parameter in head.parameters() if parameter.ndim > 1]
    if weights and not any(bool(weight.detach().any()) for weight in weights):
        raise UsageError(
            "linearized: around a head that is 0 everywhere no change of the backbone changes the output, so only a "
            "linear probe would be trained; use head_scale above 0, or a fitted head"
        )


def check_linearizable(model: nn.Module, *inputs: Any, name: str) -> None:
    """Tries the expansion and its derivative once.

    Args:
        model: It stays as it is.
        inputs: A few of what it takes.
        name: What the user calls it.

    Raises:
        UsageError: Something of it has no forward-mode derivative.
    """
    probe = Linearized(frozen_copy(model), copy.deepcopy(model).requires_grad_(True))
    try:
        probe(*inputs).sum().backward()
    except _UNSUPPORTED_ERRORS as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"linearized: {name} cannot be linearised, since torch has no forward-mode derivative for it ({reason}); "
            "use linearized: false, or another backbone"
        ) from error
