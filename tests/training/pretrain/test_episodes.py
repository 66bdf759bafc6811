"""Steps and gradients of episodes, compared with reference implementations."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nbt.training.pretrain.episodes import adapted_weights, draw_episode, meta_loss, sequential_steps

STEPS, LR = 4, 0.2


class Tiny(nn.Module):
    """A convolution with instance normalisation and a head, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 2), nn.InstanceNorm2d(2, affine=True), nn.Softplus(), nn.Flatten())
        self.head = nn.Linear(2 * 9, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))  # type: ignore[no-any-return]


@pytest.fixture
def tiny() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny().double()


@pytest.fixture
def episode() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    images = torch.randn(9, 1, 4, 4, generator=rng, dtype=torch.float64)
    return images, torch.tensor([1] * STEPS + [0, 2, 1, 2, 0])


def plain_sgd(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for image, label in zip(images, labels, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        optimizer.step()


def test_sequential_steps_equal_sgd_on_one_image_at_a_time(tiny: Tiny, episode: tuple) -> None:
    images, labels = (part[:STEPS] for part in episode)
    reference = copy.deepcopy(tiny)
    plain_sgd(reference, images, labels)
    sequential_steps(tiny, images, labels, LR)
    for parameter, expected in zip(tiny.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)
        assert parameter.grad is None


def test_adapted_weights_equal_sequential_steps_and_do_not_change_the_model(tiny: Tiny, episode: tuple) -> None:
    images, labels = (part[:STEPS] for part in episode)
    before = copy.deepcopy(tiny)
    adapted = adapted_weights(tiny, dict(tiny.named_parameters()), images, labels, LR)
    for name, parameter in tiny.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name))
    sequential_steps(before, images, labels, LR)
    for name, parameter in before.named_parameters():
        torch.testing.assert_close(adapted[name], parameter)


def test_the_meta_gradient_equals_finite_differences_through_the_steps(tiny: Tiny, episode: tuple) -> None:
    images, labels = episode
    meta_loss(tiny, images, labels, steps=STEPS, lr=LR).backward()

    def loss_after_steps(name: str, index: int, delta: float) -> float:
        shifted = copy.deepcopy(tiny)
        with torch.no_grad():
            shifted.get_parameter(name).view(-1)[index] += delta
        plain_sgd(shifted, images[:STEPS], labels[:STEPS])
        return F.cross_entropy(shifted(images), labels).item()

    step = 1e-5
    for name, parameter in tiny.named_parameters():
        assert parameter.grad is not None
        for index in range(0, parameter.numel(), max(1, parameter.numel() // 5)):
            slope = (loss_after_steps(name, index, step) - loss_after_steps(name, index, -step)) / (2 * step)
            assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-7), (name, index)


def test_the_meta_gradient_includes_second_order_terms(tiny: Tiny, episode: tuple) -> None:
    images, labels = episode
    meta_loss(tiny, images, labels, steps=STEPS, lr=LR).backward()
    first_order = copy.deepcopy(tiny)
    sequential_steps(first_order, images[:STEPS], labels[:STEPS], LR)
    gradients = torch.autograd.grad(F.cross_entropy(first_order(images), labels), list(first_order.parameters()))
    second_order_gradient = torch.cat([p.grad.flatten() for p in tiny.parameters() if p.grad is not None])
    first_order_gradient = torch.cat([gradient.flatten() for gradient in gradients])
    assert (second_order_gradient - first_order_gradient).norm() > 0.05 * first_order_gradient.norm()


def test_an_episode_has_every_image_of_its_class_and_random_others() -> None:
    class_indices = [torch.arange(0, 20), torch.arange(20, 40), torch.arange(40, 43)]
    rng = torch.Generator().manual_seed(0)
    labels = set()
    for _ in range(40):
        episode = draw_episode(class_indices, 20, 10, rng)
        labels.add(episode.label)
        counts = torch.bincount(episode.sequence, minlength=43)[class_indices[episode.label]]
        assert counts.sum() == 20 == len(episode.sequence)
        assert counts.max() - counts.min() <= 1
        assert len(set(episode.remembered.tolist())) == 10
        assert episode.remembered.max() < 43
        assert torch.equal(episode.batch, torch.cat([episode.sequence, episode.remembered]))
    assert labels == {0, 1, 2}
