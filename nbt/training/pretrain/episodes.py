"""Episodes of ASB and meta-ASB (Frati et al., arXiv 2310.07996): the images of an episode and its sequential steps.

ASB alternates sequential and batch learning. Meta-ASB differentiates through the sequential steps to second order, as
in MAML (Finn, Abbeel and Levine, arXiv 1703.03400), with `torch.func`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Episode:
    """Images of one episode, as indices of the source's images.

    Attributes:
        label: Label of the episode's class.
        sequence: Images of this class in the order of the sequential steps, int64 (S,).
        remembered: Random images of all classes, int64 (R,).
    """

    label: int
    sequence: torch.Tensor
    remembered: torch.Tensor

    @property
    def batch(self) -> torch.Tensor:
        """The images of the last step of the episode, int64 (S + R,): first those of the class, then the others."""
        return torch.cat([self.sequence, self.remembered])


def draw_episode(class_indices: list[torch.Tensor], steps: int, remembered: int, rng: torch.Generator) -> Episode:
    """Draws a class, images of this class, and images of all classes.

    Args:
        class_indices: Indices of the images of each class, int64 (n_c,); together they are 0 ... N - 1.
        steps: Number of images of the class. If it has fewer, they are repeated equally often up to a difference of 1.
        remembered: Number of images of all classes, all different unless there are fewer.
        rng: CPU generator.
    """
    label = int(torch.randint(len(class_indices), (), generator=rng))
    all_indices = torch.arange(sum(map(len, class_indices)))
    return Episode(
        label, _sample_evenly(class_indices[label], steps, rng), _sample_evenly(all_indices, remembered, rng)
    )


def _sample_evenly(index: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Draws `count` elements, each equally often up to a difference of 1."""
    rounds = [torch.randperm(len(index), generator=rng) for _ in range(-(-count // len(index)))]
    return index[torch.cat(rounds)[:count]]


def sequential_steps(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, lr: float) -> None:
    """Takes one step of SGD without momentum on each image in turn; updates the parameters in place.

    Args:
        model: Model, all of whose parameters train.
        images: Images, (S, 3, H, W).
        labels: Labels, int64 (S,).
        lr: Learning rate.
    """
    parameters: list[torch.Tensor] = list(model.parameters())
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(model(image), label), parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-lr)


def adapted_weights(
    model: nn.Module, weights: Weights, images: torch.Tensor, labels: torch.Tensor, lr: float
) -> Weights:
    """Returns the weights after one step of SGD without momentum on each image in turn, as a function of `weights`.

    The result is differentiable with respect to `weights` to any order. Neither `weights` nor the model change.

    Args:
        model: Model that maps images to logits; its own parameters are not used.
        weights: Weights by name, which require gradients.
        images: Images, (S, 3, H, W).
        labels: Labels, int64 (S,).
        lr: Learning rate.
    """
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        loss = F.cross_entropy(functional_call(model, weights, (image,)), label)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {
            name: torch.sub(value, gradient, alpha=lr)
            for (name, value), gradient in zip(weights.items(), gradients, strict=True)
        }
    return weights


def meta_loss(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, steps: int, lr: float) -> torch.Tensor:
    """Returns the loss on all images of an episode after its sequential steps; `backward` reaches the model's weights.

    The model's weights do not change: the sequential steps use a differentiable copy, which is freed with the graph.

    Args:
        model: Model with the weights before the episode.
        images: Images of the episode, (S + R, 3, H, W), those of the sequential steps first.
        labels: Labels, int64 (S + R,).
        steps: Number of sequential steps S.
        lr: Learning rate of the sequential steps.
    """
    adapted = adapted_weights(model, dict(model.named_parameters()), images[:steps], labels[:steps], lr)
    return F.cross_entropy(functional_call(model, adapted, (images,)), labels)
