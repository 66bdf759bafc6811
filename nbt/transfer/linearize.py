"""Linearised fine-tuning: the first-order expansion of a network around its initial weights.

`f(x; w) = f0(x) + J(x) w` with `w = theta - theta0` and the Jacobian `J` fixed at `theta0`. DLCFT (Shon, Lee, Kim and
Kim, "DLCFT: Deep Linear Continual Fine-Tuning for General Incremental Learning", arXiv 2208.08112) trains this
expansion instead of the network: with squared error the loss of every task is then an exact quadratic in `w`. **The
equations are derived from the abstract**; the paper's body and code were not available.

One pass in forward mode (`torch.func.jvp`) computes both `f0` and `J w`. Consequences of the equations:

- `theta0` is fixed, and BatchNorm and dropout are in evaluation mode, because otherwise J would change between batches.
- With a head that is 0 the tangents of the backbone do not reach the output, and the expansion would be a linear probe.
  The same holds for a single class whose row is 0. Such heads are refused. Use a fitted head, or the random
  initialisation of a new layer.
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
from nbt.errors import UsageError, one_line_message

# Errors of operations without forward-mode derivative or without support for functional transforms.
_UNSUPPORTED_ERRORS = (NotImplementedError, RuntimeError, TypeError, AttributeError)


class Linearized(nn.Module):
    """`f0(x) + J(x) w` with the weights `w` in a separate module; created by `linearize`.

    Attributes:
        base: The network at theta0, frozen.
        w: A module of the same structure whose parameters are w, initially 0, so that parameter groups, depths and
            rates are chosen as in the network. Its parameters require gradients where those of the network do; its
            buffers and modes are not used.
    """

    def __init__(self, base: nn.Module, w: nn.Module) -> None:
        super().__init__()
        self.base, self.w = base, w
        self._names = trainable_parameter_names(w)
        self.eval()

    def train(self, mode: bool = True) -> Linearized:
        """Remains in evaluation mode, because J is fixed."""
        return super().train(False)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """Maps the network's inputs to its outputs, such as logits, (N, C)."""
        parameters = dict(self.w.named_parameters())
        return first_order(self.base, {name: parameters[name] for name in self._names}, *inputs)


class FirstOrder(nn.Module):
    """`f(x; theta0) + J(x; theta0) (theta - theta0)` of a model whose own parameters, theta, are trained.

    The same function as `Linearized`, for code that steps, decays, averages and saves the parameters of a model.

    Attributes:
        base: A frozen copy of the model at theta0.
        model: The model; its buffers and modes are not used.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.base = frozen_copy(model)
        self._names = trainable_parameter_names(model)
        self.eval()

    def train(self, mode: bool = True) -> FirstOrder:
        """Remains in evaluation mode, because J is fixed."""
        return super().train(False)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """Maps the model's inputs to its outputs, such as logits, (N, C)."""
        current, origin = dict(self.model.named_parameters()), dict(self.base.named_parameters())
        return first_order(self.base, {name: current[name] - origin[name] for name in self._names}, *inputs)


def linearize(model: nn.Module, head: nn.Module | None = None) -> Linearized:
    """Returns the first-order expansion of a model around its current weights.

    Args:
        model: The model, in any mode; it is copied and not modified. Parameters of `w` require gradients where those of
            the model do.
        head: Its last layer, to be checked; `model.head`, if it exists, when None.

    Raises:
        UsageError: A row of the head is 0, so that the expansion would be a linear probe of its class.
    """
    check_head(head if head is not None else getattr(model, "head", None))
    w = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in w.parameters():
            parameter.zero_()
            parameter.grad = None
    return Linearized(frozen_copy(model), w)


def trainable_parameter_names(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the parameters that require gradients at the time of the call."""
    return tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode whose parameters require no gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def first_order(base: nn.Module, displacement: Mapping[str, torch.Tensor], *inputs: Any) -> torch.Tensor:
    """Returns `f(x; theta0) + J(x; theta0) v`, once differentiable with respect to v, but not to the inputs.

    Args:
        base: The network at theta0, in evaluation mode.
        displacement: v by name of the parameter; other parameters remain at theta0.
        inputs: Inputs of the network.
    """
    return _FirstOrderFunction.apply(base, tuple(displacement), inputs, *displacement.values())  # type: ignore[no-any-return]


class _FirstOrderFunction(torch.autograd.Function):
    """One pass in forward mode; the gradient with respect to v is `J' g`, an ordinary backward pass at theta0.

    PyTorch could differentiate the forward-mode pass itself, but that would keep the tangents of every layer, requires
    second derivatives that some activations lack, and was not faster (mobilenet_v2: 2.4 against 3.0 times an ordinary
    step).
    """

    @staticmethod
    def forward(
        ctx: Any, base: nn.Module, names: tuple[str, ...], inputs: Any, *displacement: torch.Tensor
    ) -> torch.Tensor:
        _load_forward_mode_rules()
        ctx.base, ctx.names, ctx.inputs = base, names, inputs
        ctx.device = displacement[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        with torch.no_grad(), _math_attention():
            origin = _detached_parameters(base, names)
            directions = dict(zip(names, displacement, strict=True))
            output, change = jvp(partial(_functional_call, base, inputs), (origin,), (directions,))  # type: ignore[misc]
            return output + change  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        enabled, dtype = ctx.autocast
        with torch.enable_grad(), torch.autocast(ctx.device, dtype=dtype, enabled=enabled), _math_attention():
            detached = _detached_parameters(ctx.base, ctx.names)
            origin = {name: tensor.requires_grad_() for name, tensor in detached.items()}
            output = _functional_call(ctx.base, ctx.inputs, origin)
        needed = ctx.needs_input_grad[3:]
        targets = [tensor for tensor, is_needed in zip(origin.values(), needed, strict=True) if is_needed]
        gradients = iter(torch.autograd.grad(output, targets, gradient, allow_unused=True))
        return None, None, None, *(next(gradients) if is_needed else None for is_needed in needed)


@cache
def _load_forward_mode_rules() -> None:
    """Makes PyTorch load its forward-mode rules, whose first use emits a warning that does not concern users."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


def _detached_parameters(base: nn.Module, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    parameters = dict(base.named_parameters())
    return {name: parameters[name].detach() for name in names}


def _functional_call(base: nn.Module, inputs: Any, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """Calls `functional_call` with the parameters last, so that the other arguments can be bound."""
    return functional_call(base, parameters, inputs)  # type: ignore[no-any-return]


@contextmanager
def _math_attention() -> Iterator[None]:
    """Uses the plain implementation of attention, the only one with a forward-mode derivative, inside the context."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


def check_head(head: nn.Module | None) -> None:
    """Checks that every output of an expansion depends on the backbone.

    Raises:
        UsageError: The weights of an output are 0.
    """
    weights = [] if head is None else [parameter.detach() for parameter in head.parameters() if parameter.ndim > 1]
    zero = [] if not weights else torch.nonzero(~weights[-1].flatten(1).any(dim=1))[:, 0].tolist()
    if zero:
        where = "everywhere" if len(zero) == len(weights[-1]) else f"in row {zero[0]}"
        raise UsageError(
            f"linearized: with a head that is 0 {where} the output does not depend on the backbone, so only a linear "
            "probe would be trained; use head_scale above 0, or a fitted head"
        )


def check_linearizable(model: nn.Module, *inputs: Any, name: str) -> None:
    """Computes the expansion and its derivative once, as a check.

    Args:
        model: The model, which is not modified.
        inputs: A few samples.
        name: Name of the model in messages.

    Raises:
        UsageError: An operation of the model has no forward-mode derivative.
    """
    probe = Linearized(frozen_copy(model), copy.deepcopy(model).requires_grad_(True))
    try:
        probe(*inputs).sum().backward()
    except _UNSUPPORTED_ERRORS as error:
        if out_of_memory(error):
            raise
        raise UsageError(
            f"linearized: {name} cannot be linearised, because PyTorch lacks a forward-mode derivative "
            f"({one_line_message(error)}); use linearized: false, or another backbone"
        ) from error
