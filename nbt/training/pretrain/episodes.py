"""Episodes of ASB and meta-ASB (Frati et al., arXiv 2310.07996): which images, and the steps on single ones.

ASB alternates sequential and batch learning. Meta-ASB differentiates through the sequential steps to second order, as
MAML does (Finn, Abbeel and Levine, arXiv 1703.03400), by `torch.func`.
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
    """What one episode sees, as positions among the source's images.

    Attributes:
        label: The class.
        sequence: Its images in the order of the single steps, int64 (S,).
        remembered: Random images of all classes, int64 (R,).
    """

    label: int
    sequence: torch.Tensor
    remembered: torch.Tensor

    @property
    def batch(self) -> torch.Tensor:
        """The images of the step that ends the episode, int64 (S + R,): the class's first."""
        return torch.cat([self.sequence, self.remembered])


def draw_episode(class_indices: list[torch.Tensor], steps: int, remembered: int, rng: torch.Generator) -> Episode:
    """Draws a class, images of it, and images of all classes.

    Args:
        class_indices: Positions of each class's images, int64 (n_c,), together 0 ... N-1.
        steps: Images of the class; all of its images come equally often where it has fewer.
        remembered: Images of all classes, all different unless there are fewer.
        rng: CPU generator.
    """
    label = int(torch.randint(len(class_indices), (), generator=rng))
    everything = torch.arange(sum(map(len, class_indices)))
    return Episode(label, _sample_evenly(class_indices[label], steps, rng), _sample_evenly(everything, remembered, rng))


def _sample_evenly(index: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    rounds = [torch.randperm(len(index), generator=rng) for _ in range(-(-count // len(index)))]
    return index[torch.cat(rounds)[:count]]


def sequential_steps(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, lr: float) -> None:
    """Takes one step of plain SGD on each image in turn, in place: no momentum, and no optimiser knows of it.

    Args:
        model: All of its parameters train.
        images: (S, 3, H, W).
        labels: int64 (S,).
        lr: Rate.
    """
    parameters: list[torch.Tensor] = list(model.parameters())
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(model(image), label), parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-lr)


def adapted_weights(
    model: nn.Module, weights: Weights, images: torch.Tensor, labels: torch.Tensor, lr: float
) -> Weights:
    """Returns the weights after one step of plain SGD on each image in turn, as a function of the weights before.

    The result can be differentiated by `weights` to any order; neither they nor the model change.

    Args:
        model: Says how images become logits; its own parameters are not read.
        weights: By name, requiring gradients.
        images: (S, 3, H, W).
        labels: int64 (S,).
        lr: Rate.
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
    """Returns the loss on a whole episode after the steps on its single images, for `backward` to the model's weights.

    The model's weights do not change: the steps are taken on a differentiable copy, which goes with the graph.

    Args:
        model: The weights before the episode.
        images: Of the episode, (S + R, 3, H, W), the S of the steps first.
        labels: int64 (S + R,).
        steps: S.
        lr: Rate of the steps.
    """
    adapted = adapted_weights(model, dict(model.named_parameters()), images[:steps], labels[:steps], lr)
    return F.cross_entropy(functional_call(model, adapted, (images,)), labels)
