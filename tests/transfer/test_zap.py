from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nbt.errors import UsageError
from nbt.transfer.zap import draw_zapped_classes, zap, zap_std


def make_head(features: int = 40, classes: int = 12, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(features, classes)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(classes=st.sets(st.integers(0, 11), min_size=1), seed=st.integers(0, 9))
def test_only_the_rows_of_the_classes_change_and_biases_are_kept(classes: set[int], seed: int) -> None:
    head = make_head()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    zap(head, classes, generator=rng(seed))
    changed = (head.weight != before["weight"]).any(dim=1)
    assert set(torch.nonzero(changed)[:, 0].tolist()) == classes
    assert torch.equal(head.weight[~changed], before["weight"][~changed])
    assert torch.equal(head.bias, before["bias"])


@pytest.mark.parametrize(
    ("classes", "scale", "expected"),
    [
        (None, "per_row", math.sqrt(2 / 4000)),
        ([3], "per_row", math.sqrt(2 / 4000)),
        ([3], "as_released", math.sqrt(2 / 4000)),
        (None, "as_released", math.sqrt(2 / (25 * 4000))),
        (range(5), "as_released", math.sqrt(2 / (5 * 4000))),
    ],
)
def test_the_standard_deviation_depends_on_the_scale(classes: list[int] | None, scale: str, expected: float) -> None:
    head = make_head(4000, 25)
    zap(head, classes, scale, rng())
    rows = head.weight if classes is None else head.weight[list(classes)]
    # The relative error of the standard deviation of n normal numbers exceeds 4 / sqrt(2 n) once in 10,000 draws.
    assert rows.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * rows.numel()))
    assert abs(rows.mean().item()) < 4 * expected / math.sqrt(rows.numel())
    assert zap_std(4000, len(rows), scale) == pytest.approx(expected)


def test_a_generator_gives_reproducible_draws_without_the_global_one() -> None:
    heads = [make_head(seed=0), make_head(seed=1)]
    state = torch.get_rng_state()
    for head in heads:
        zap(head, generator=rng(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(heads[0].weight, heads[1].weight)
    zap(heads[1], generator=rng(6))
    assert not torch.equal(heads[0].weight, heads[1].weight)


def test_without_a_generator_the_global_one_is_used() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = make_head()
        state = torch.get_rng_state()
        zap(head)
        assert not torch.equal(torch.get_rng_state(), state)


def test_repeats_and_order_of_classes_do_not_matter() -> None:
    heads = [make_head(), make_head()]
    zap(heads[0], [4, 1, 4], "as_released", rng())
    zap(heads[1], torch.tensor([1, 4]), "as_released", rng())
    assert torch.equal(heads[0].weight, heads[1].weight)


def stepped(optimizer: type[torch.optim.Optimizer], **options: float) -> tuple[nn.Linear, torch.optim.Optimizer]:
    head = make_head()
    instance = optimizer(head.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
    head(torch.ones(2, 40)).square().sum().backward()
    instance.step()
    return head, instance


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [(torch.optim.Adam, {}, ["exp_avg", "exp_avg_sq"]), (torch.optim.SGD, {"momentum": 0.9}, ["momentum_buffer"])],
)
def test_moments_are_kept_unless_reset(kind: type, options: dict[str, float], names: list[str]) -> None:
    head, optimizer = stepped(kind, **options)
    states = [optimizer.state[head.weight], optimizer.state[head.bias]]
    before = [{name: state[name].clone() for name in names} for state in states]
    zap(head, [2, 7], generator=rng())
    assert all(torch.equal(s[n], b[n]) for s, b in zip(states, before, strict=True) for n in names)
    steps = {name: value for name, value in states[0].items() if name == "step"}
    zap(head, [2, 7], generator=rng(), optimizer=optimizer)
    rest = [row for row in range(12) if row not in (2, 7)]
    for state, earlier in zip(states, before, strict=True):
        for name in names:
            assert earlier[name][[2, 7]].abs().min() > 0
            assert state[name][[2, 7]].abs().max() == 0
            assert torch.equal(state[name][rest], earlier[name][rest])
    assert all(states[0][name] == value for name, value in steps.items())


def test_biases_can_be_reset() -> None:
    head = make_head()
    before = head.bias.detach().clone()
    zap(head, [0, 5], generator=rng(), reset_bias=True)
    assert head.bias[[0, 5]].tolist() == [0.0, 0.0]
    assert torch.equal(head.bias[[1, 2, 3, 4]], before[[1, 2, 3, 4]])
    without = nn.Linear(4, 3, bias=False)
    zap(without, reset_bias=True, generator=rng())


def test_a_zapped_head_still_trains() -> None:
    head = make_head()
    zap(head, generator=rng())
    head(torch.ones(1, 40)).sum().backward()
    assert head.weight.is_leaf
    assert head.weight.grad is not None


@pytest.mark.parametrize(
    ("head", "classes", "scale", "message"),
    [
        (nn.Conv2d(3, 4, 1), None, "per_row", "the head is a Conv2d, not linear"),
        (nn.Sequential(nn.Linear(3, 2)), None, "per_row", "the head is a Sequential"),
        (nn.Linear(3, 2), [], "per_row", "0 classes"),
        (nn.Linear(3, 2), [0, 2], "per_row", r"class 2 is not in the head's 0 \.\.\. 1"),
        (nn.Linear(3, 2), [-1], "per_row", "class -1"),
        (nn.Linear(3, 2), None, "kaiming", "scale 'kaiming' is not one of per_row, as_released"),
    ],
)
def test_invalid_input_raises_and_changes_nothing(head: nn.Module, classes: object, scale: str, message: str) -> None:
    before = [parameter.clone() for parameter in head.parameters()]
    with pytest.raises(UsageError, match=message):
        zap(head, classes, scale)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


@given(count=st.integers(1, 50), fraction=st.floats(0.001, 1.0), seed=st.integers(0, 5))
def test_a_share_of_the_classes(count: int, fraction: float, seed: int) -> None:
    drawn = draw_zapped_classes(count, fraction, rng(seed))
    if fraction == 1.0:
        assert drawn is None
        return
    assert drawn is not None
    assert drawn == sorted(set(drawn))
    assert len(drawn) == max(1, round(fraction * count))
    assert all(0 <= index < count for index in drawn)
    assert drawn == draw_zapped_classes(count, fraction, rng(seed))


def test_draws_of_a_share_differ() -> None:
    source = rng()
    assert len({tuple(draw_zapped_classes(30, 0.3, source) or ()) for _ in range(5)}) == 5


@pytest.mark.parametrize(("fraction", "message"), [(0.0, "no class"), (-1.0, "no class"), (1.5, "more than the head")])
def test_a_share_of_no_class_is_refused(fraction: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw_zapped_classes(10, fraction)
