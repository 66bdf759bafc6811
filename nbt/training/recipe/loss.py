"""Training loss without penalties: cross-entropy or squared error, on all outputs or a subset."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nbt.settings import TransferSettings


class TrainingLoss:
    """Mean loss of a batch.

    A `target_scale` a > 0 selects the squared error `1/2 sum_c (f_c - a t_c)^2` with targets t; the derivation of DLCFT
    (arXiv 2208.08112) uses its sum over images. 0 selects cross-entropy. `label_smoothing` applies to both.

    With `class_weights` "balanced", the mean over a batch is weighted by n / (C n_c), with n_c the number of the n
    training images of class c, so that every class has the same weight in an epoch.

    Args:
        settings: The recipe, with `target_scale`, `label_smoothing` and `class_weights`.
        outputs: Outputs that take part, bool (C,) on the device; None for all.
        labels: Labels of all training images, int64 (n,) on the device; needed for balanced weights.
    """

    def __init__(
        self,
        settings: TransferSettings,
        outputs: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> None:
        self.target_scale, self.smoothing = settings.target_scale, settings.label_smoothing
        self.outputs = outputs
        self._active_outputs = None if outputs is None else outputs.nonzero().flatten()
        # Position of each label among the outputs that take part.
        self._position = None if outputs is None else outputs.cumsum(0) - 1
        self._weights = None
        if settings.class_weights == "balanced":
            assert labels is not None, "balanced weights need the labels of the training images"
            self._weights = len(labels) / labels.bincount().clamp_min(1)

    def __call__(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss, in nats for cross-entropy.

        Args:
            logits: Logits, (n, C).
            truth: Labels, int64 (n,), among the outputs that take part.
        """
        labels = truth
        if self._active_outputs is not None and self._position is not None:
            logits, truth = logits.index_select(1, self._active_outputs), self._position[truth]
        if self._weights is None:
            return self._losses(logits, truth, "mean")
        weights = self._weights[labels]
        return (self._losses(logits, truth, "none") * weights).sum() / weights.sum()

    def _losses(self, logits: torch.Tensor, truth: torch.Tensor, reduction: str) -> torch.Tensor:
        if self.target_scale == 0.0:
            return F.cross_entropy(logits, truth, label_smoothing=self.smoothing, reduction=reduction)
        classes = logits.shape[1]
        targets = F.one_hot(truth, classes) * (1.0 - self.smoothing) + self.smoothing / classes
        errors = (logits - self.target_scale * targets).square().sum(dim=1)
        return (errors.mean() if reduction == "mean" else errors) / 2

    def mask_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits with -inf for outputs that do not take part, so that they are never predicted."""
        return logits if self.outputs is None else logits.masked_fill(~self.outputs, -torch.inf)
