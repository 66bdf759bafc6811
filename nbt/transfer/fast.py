"""FAST: fast and stable task adaptation, with an uninformative initial head and temporarily frozen features.

Varno, May Petry, Di Jorio and Matwin, "Learn Faster and Forget Slower via Fast and Stable Task Adaptation", arXiv
2007.01388; its predecessor is ENTAME, arXiv 1905.10698. **This is a reconstruction from the two abstracts**; the
authors' code and the body of the papers were not available. According to the abstracts, a randomly initialised head
sends gradients of high energy into pretrained features before anything of the target is learned; the remedy is an
output of maximum uncertainty and a first error that does not pass the head. The steps follow from this:

1. *Zero head* (`scale_head`). With `W = 0` and `b = 0` the prediction is uniform for all features: the output of
   maximum uncertainty, with a loss of `ln C`. The gradient of the features is `W' (p - onehot)`, so it is exactly 0 in
   the first step: the first error does not pass the head. With a small random head it is only small.
2. *Normalised features* (`FeatureNorm`). The first gradient of the head is the mean over images of
   `(1/C - onehot) n`; with features `n` of mean 0 the first step sets each row to the direction of its class mean, so
   the head becomes a nearest-class-mean classifier. Without normalisation every row also contains the mean of all
   classes, and the features of the largest scale limit the stable learning rates. No affine layer follows, because the
   head is linear.
3. *Stall* (`stalled`). From the second step on the head is not 0, and an optimiser that divides gradients by their
   scale (Adam) moves the backbone by a full learning rate even if its gradients are small. So for some steps only the
   head is trained. A stalled backbone is frozen completely: no decay, no update of running statistics or of the
   optimiser's moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.settings import FEATURE_NORMS

_FEATURE_NORM_MODES = tuple(mode for mode in FEATURE_NORMS if mode != "none")


class FeatureNorm(nn.Module):
    """Standardises every feature to mean 0 and variance 1, without affine parameters: (N, D) to (N, D).

    A feature of variance 0, which carries no information, becomes 0. The module has buffers and no parameters, so it
    belongs to the model's state dict and not to the optimiser.

    Args:
        mode: "batch" uses the statistics of the batch in training (with gradients through them) and running statistics
            in evaluation; "target" always uses the statistics computed by `fit`.
        dim: Number of features D.
        eps: Constant added to each variance, above 0, so that nearly constant features are not amplified.
        momentum: Weight of the newest batch in the running statistics, above 0 ... 1. For the first 1 / momentum
            batches they are the plain mean, so that they do not depend on their initial values.

    Attributes:
        mean: Mean of each feature, (D,).
        var: Variance of each feature, (D,).
        seen: Number of batches in the running statistics; number of images for "target".

    Raises:
        UsageError: The mode is unknown.
    """

    mean: torch.Tensor
    var: torch.Tensor
    seen: torch.Tensor

    def __init__(self, mode: str, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        if mode not in _FEATURE_NORM_MODES:
            raise UsageError(f"feature norm {mode!r} is not one of {', '.join(_FEATURE_NORM_MODES)}")
        self.mode, self.dim, self.eps, self.momentum = mode, dim, eps, momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._ready = mode == "batch"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Standardises features, (N, D), in float32.

        Raises:
            UsageError: The batch has one image in training with mode "batch", or mode "target" was not fitted.
        """
        features = features.float()
        if self.mode == "batch" and self.training:
            return self._forward_batch(features)
        if not self._ready:
            raise UsageError("feature norm target: call fit with the features of the target's training images first")
        return standardise(features, self.mean, self.var, self.eps)

    def _forward_batch(self, features: torch.Tensor) -> torch.Tensor:
        n = len(features)
        if n < 2:
            raise UsageError(
                f"feature norm batch: a training batch of {n} image has no statistics; give 2 or more, or use target"
            )
        var, mean = torch.var_mean(features, dim=0, correction=0)
        with torch.no_grad():
            self.seen.add_(1)
            weight = (1.0 / self.seen).clamp_min(self.momentum)
            self.mean.lerp_(mean, weight)
            self.var.lerp_(var * (n / (n - 1)), weight)
        return standardise(features, mean, var, self.eps)

    @torch.no_grad()
    def fit(self, batches: torch.Tensor | Iterable[torch.Tensor]) -> FeatureNorm:
        """Computes the statistics of the target's features for mode "target", and returns the module.

        Args:
            batches: Features, (N, D), or batches of them.

        Raises:
            UsageError: There are fewer than two images, or the mode is "batch".
        """
        if self.mode != "target":
            raise UsageError("feature norm batch uses the statistics of its batches; fit is for mode target")
        count = 0
        total = torch.zeros(self.dim, dtype=torch.float64, device=self.mean.device)
        squares = torch.zeros_like(total)
        origin: torch.Tensor | None = None
        for batch in (batches,) if isinstance(batches, torch.Tensor) else batches:
            values = batch.to(total)
            # Shifting by the mean of the first batch avoids cancellation in the sums of squares.
            origin = values.mean(dim=0) if origin is None else origin
            total += (values - origin).sum(dim=0)
            squares += (values - origin).square().sum(dim=0)
            count += len(values)
        if count < 2 or origin is None:
            raise UsageError(f"feature norm target: {count} images have no variance; give 2 or more")
        self.mean.copy_(origin + total / count)
        self.var.copy_((squares / count - (total / count).square()).clamp_min(0.0))
        self.seen.fill_(count)
        self._ready = True
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = self.mode == "batch" or int(self.seen) > 0

    def extra_repr(self) -> str:
        """Returns the text that `repr` shows in parentheses."""
        return f"{self.mode!r}, {self.dim}, eps={self.eps:g}"


def standardise(features: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, eps: float) -> torch.Tensor:
    """Returns `(features - mean) / sqrt(var + eps)`, and 0 for features of variance 0.

    Args:
        features: (N, D).
        mean: (D,).
        var: (D,), 0 or more.
        eps: Above 0.
    """
    return (features - mean) * torch.where(var == 0.0, 0.0, (var + eps).rsqrt())


def make_feature_norm(mode: str, dim: int) -> nn.Module:
    """Returns a `FeatureNorm` for `dim` features, or the identity for "none"."""
    return nn.Identity() if mode == "none" else FeatureNorm(mode, dim)


@torch.no_grad()
def scale_head(head: nn.Module, scale: float) -> None:
    """Multiplies the weights and biases of a newly initialised head in place.

    Args:
        head: The last layer.
        scale: The factor, 0 or more; 0 sets them to exactly 0, 1 leaves them unchanged.

    Raises:
        UsageError: The scale is negative.
    """
    if scale < 0.0:
        raise UsageError(f"head scale: {scale:g} is negative")
    for parameter in head.parameters():
        if scale == 0.0:
            parameter.zero_()  # multiplication would turn negative weights into -0
        elif scale != 1.0:
            parameter.mul_(scale)


@contextmanager
def stalled(*modules: nn.Module) -> Iterator[None]:
    """Freezes modules inside the context; afterwards they train as before.

    The modules run in evaluation mode (no updates of running statistics, no dropout) and get no gradients, so that no
    graph is built for them and PyTorch's optimisers skip them, including decay and moments. Custom penalties and decays
    must skip parameters without gradients, as `L2SP.add_to_gradients` does.

    The modes are recorded on entry, so call `model.train()` before entering.

    Args:
        modules: All modules below the head.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    for module in modules:
        module.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter in trained:
            parameter.requires_grad_(True)
