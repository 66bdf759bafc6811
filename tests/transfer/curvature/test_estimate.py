from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from nbt.errors import UsageError
from nbt.transfer.curvature import layer_calls
from nbt.transfer.curvature.estimate import (
    Curvature,
    DiagonalCurvature,
    ExactCurvature,
    check_curvature,
    curvature_bytes,
    estimate_curvature,
    load_curvature,
)
from tests.transfer.curvature.curvature_models import (
    convs,
    dense,
    images,
    indices_of,
    jacobian,
    mlp,
    trained,
    unflatten,
    vectors,
)

KINDS = ("exact", "kfac", "diagonal")
CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def estimate(kind: str, model: nn.Module, inputs: torch.Tensor, **options: object) -> Curvature:
    return estimate_curvature(kind, model, inputs.split(3), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lambda: (mlp(4, 5, 3), vectors(7, 4)), lambda: (convs(), images())])
def test_exact_is_the_sum_of_squared_jacobians(make) -> None:
    model, inputs = make()
    rows = jacobian(model, inputs)
    torch.testing.assert_close(
        dense(estimate("exact", model, inputs), model), torch.einsum("ncp,ncq->pq", rows, rows), **CLOSE
    )


def test_exact_restricted_to_outputs_and_exact_fisher() -> None:
    model, inputs = mlp(4, 5, 4), vectors(7, 4)
    mask = torch.tensor([True, False, True, True])
    rows = jacobian(model, inputs)
    restricted = estimate("exact", model, inputs, outputs=mask)
    expected = torch.einsum("ncp,ncq->pq", rows[:, mask], rows[:, mask])
    torch.testing.assert_close(dense(restricted, model), expected, **CLOSE)
    p = model(inputs).detach()[:, mask].softmax(dim=1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    fisher = estimate("exact", model, inputs, outputs=mask, vectors="fisher")
    expected = torch.einsum("ncp,ncd,ndq->pq", rows[:, mask], middle, rows[:, mask])
    torch.testing.assert_close(dense(fisher, model), expected, **CLOSE)


@pytest.mark.parametrize("make", [lambda: (mlp(4, 5, 3), vectors(7, 4)), lambda: (convs(), images())])
def test_diagonal_with_unit_vectors_is_the_diagonal_of_the_exact_matrix(make) -> None:
    model, inputs = make()
    exact = estimate("exact", model, inputs)
    diagonal = estimate("diagonal", model, inputs, vectors="unit")
    torch.testing.assert_close(dense(diagonal, model), torch.diag(dense(exact, model).diag()), **CLOSE)


@pytest.mark.parametrize("vectors_", ["signs", "fisher"])
def test_sampled_vectors_are_unbiased(vectors_: str) -> None:
    model, inputs = mlp(3, 4, 4), vectors(4, 3)
    mask = torch.tensor([True, True, False, True])
    exact = estimate("exact", model, inputs, outputs=mask, vectors=vectors_)
    rng = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [
            dense(estimate("diagonal", model, inputs, outputs=mask, vectors=vectors_, generator=rng), model).diag()
            for _ in range(400)
        ]
    )
    error = (draws.mean(dim=0) - dense(exact, model).diag()).abs()
    assert (error <= 5 * draws.std(dim=0) / 400**0.5 + 1e-9).all()
    assert draws.std(dim=0).max() > 0.01


def test_draws_depend_on_the_generator() -> None:
    model, inputs = mlp(4, 5, 3), vectors(7, 4)
    first, again, other = (
        dense(estimate("kfac", model, inputs, generator=torch.Generator().manual_seed(seed)), model)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors_", ["unit", "signs", "fisher"])
def test_a_curvature_is_symmetric_and_positive_semi_definite(kind: str, vectors_: str) -> None:
    model, inputs = mlp(4, 5, 3), vectors(7, 4)
    matrix = dense(estimate(kind, model, inputs, vectors=vectors_), model)
    torch.testing.assert_close(matrix, matrix.mT, **CLOSE)
    assert torch.linalg.eigvalsh(matrix).min() >= -1e-9 * matrix.norm()
    assert matrix.norm() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_curvature_is_a_sum_over_samples_for_any_batches(kind: str) -> None:
    model, inputs = convs(), images(4)
    once = dense(estimate(kind, model, inputs, vectors="unit"), model)
    twice = estimate_curvature(kind, model, [inputs, inputs[:1], inputs[1:]], vectors="unit")
    torch.testing.assert_close(dense(twice, model), 2 * once, **CLOSE)
    assert twice.samples == 8


@pytest.mark.parametrize("kind", ["exact", "diagonal"])
def test_merging_is_exact(kind: str) -> None:
    model, inputs = mlp(4, 5, 3), vectors(8, 4)
    parts = [estimate(kind, model, part, vectors="unit") for part in (inputs[:3], inputs[3:])]
    merged = parts[0].plus(parts[1])
    torch.testing.assert_close(
        dense(merged, model), dense(estimate(kind, model, inputs, vectors="unit"), model), **CLOSE
    )
    assert merged.samples == 8


def test_different_curvatures_cannot_be_merged() -> None:
    model, inputs = mlp(4, 5, 3), vectors(3, 4)
    with pytest.raises(ValueError, match="kind exact cannot be merged with one of kind diagonal"):
        estimate("exact", model, inputs).plus(estimate("diagonal", model, inputs))
    with pytest.raises(ValueError, match="different parameters"):
        estimate("kfac", model, inputs).plus(estimate("kfac", mlp(4, 6, 3), inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_of_other_parameters_is_refused(kind: str) -> None:
    model, inputs = mlp(4, 5, 3), vectors(3, 4)
    curvature = estimate(kind, model, inputs)
    vector = {name: p.detach() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"0\.weight has shape"):
        curvature.multiply({**vector, "0.weight": vector["0.weight"].mT})
    del vector["2.bias"]
    with pytest.raises(ValueError, match=r"2\.bias"):
        curvature.multiply(vector)


@pytest.mark.parametrize("kind", KINDS)
def test_only_trainable_parameters_are_covered(kind: str) -> None:
    model, inputs = convs(), images()
    model.body[0].requires_grad_(False)
    model.body[3].weight.requires_grad_(False)
    model.norm.bias.requires_grad_(False)
    curvature = estimate(kind, model, inputs, vectors="unit")
    assert curvature.shapes.keys() == trained(model).keys()
    rows = jacobian(model, inputs)
    exact = torch.einsum("ncp,ncq->pq", rows, rows)
    if kind == "exact":
        torch.testing.assert_close(dense(curvature, model), exact, **CLOSE)
    if kind == "diagonal":
        torch.testing.assert_close(dense(curvature, model).diag(), exact.diag(), **CLOSE)
    assert curvature.nbytes == curvature_bytes(kind, model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_not_modified(kind: str) -> None:
    model, inputs = convs(), images()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs_before = inputs.clone()
    estimate(kind, model, inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(inputs, inputs_before)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"head.weight"}
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(module.training for module in model.modules())


def test_hooks_are_removed_when_the_model_fails() -> None:
    model = convs()
    with pytest.raises(RuntimeError):
        estimate_curvature("kfac", model, [torch.zeros(2, 5, 9, 8, dtype=torch.double)])
    assert not any(module._forward_hooks for module in model.modules())


def raise_out_of_memory(*args: object, **options: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_memory_errors_do_not_change_the_estimate(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out-of-memory errors neither exclude a layer nor are reported as a model without derivative."""
    monkeypatch.setattr(layer_calls.ForwardPass, "per_sample", raise_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        estimate(kind, mlp(4, 5, 3), vectors(5, 4))
    monkeypatch.undo()
    monkeypatch.setattr(layer_calls, "vmap", lambda *args: raise_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        estimate(kind, convs(), images())


class Unusual(nn.Module):
    """A layer called twice, a layer used without being called, a tied weight, and positions before samples."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.uncalled = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied_too = nn.Linear(4, 4)
        self.tied_too.weight = self.tied.weight
        self.positions_first = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.both = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.twice(self.twice(inputs).relu())
        hidden = nn.functional.linear(hidden, self.uncalled.weight, self.uncalled.bias)
        hidden = self.tied_too(self.tied(hidden).sigmoid())
        series = torch.stack([hidden, hidden.sin(), hidden.cos()])  # (3, n, 4)
        hidden = self.norm(self.positions_first(series)).tanh().sum(dim=0)
        hidden = self.both(hidden) + hidden @ self.both.weight.exp()
        return self.head(hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_in_unusual_use_are_estimated_correctly(kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = Unusual().double().eval(), vectors(6, 4)
    rows = jacobian(model, inputs)
    exact = torch.einsum("ncp,ncq->pq", rows, rows)
    curvature = estimate(kind, model, inputs, vectors="unit")
    matrix = dense(curvature, model)
    if kind == "exact":
        torch.testing.assert_close(matrix, exact, **CLOSE)
        return
    uncovered = indices_of(
        model, "uncalled.weight", "uncalled.bias", "tied.weight", "tied_too.bias", "both.weight", "both.bias"
    )
    if kind == "diagonal":
        uncovered = torch.arange(len(exact))
    elif kind == "kfac":
        bias = indices_of(model, "tied_too.bias")  # it has a separate factor
        uncovered = uncovered[~torch.isin(uncovered, bias)]
        assert curvature.nbytes < curvature_bytes(kind, model)
    torch.testing.assert_close(matrix.diag()[uncovered], exact.diag()[uncovered], **CLOSE)
    assert matrix[uncovered][:, uncovered].count_nonzero() <= len(uncovered)


class AttentionBlock(nn.Module):
    """PyTorch's attention, whose parts are not called, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([self.token.expand(len(inputs), -1, -1), inputs], dim=1)
        hidden = hidden + self.attention(self.norm(hidden), hidden, hidden, need_weights=False)[0]
        return self.head(hidden[:, 0])


def test_attention_and_class_tokens_have_their_exact_diagonal() -> None:
    torch.manual_seed(0)
    model, inputs = AttentionBlock().double().eval(), vectors(15, 4).view(5, 3, 4)
    rows = jacobian(model, inputs)
    exact = torch.einsum("ncp,ncq->pq", rows, rows)
    curvature = estimate("kfac", model, inputs, vectors="unit")
    inside = indices_of(model, *(name for name in trained(model) if name.startswith(("token", "attention"))))
    torch.testing.assert_close(dense(curvature, model)[inside][:, inside], torch.diag(exact.diag()[inside]), **CLOSE)
    assert curvature.nbytes == curvature_bytes("kfac", model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [lambda: (mlp(4, 5, 3), vectors(5, 4)), lambda: (convs(), images())])
def test_bytes_are_computed_before_estimation(kind: str, make) -> None:
    model, inputs = make()
    assert estimate(kind, model, inputs).nbytes == curvature_bytes(kind, model)
    model, inputs = model.float(), inputs.float()
    assert estimate(kind, model, inputs).nbytes == curvature_bytes(kind, model)


def test_a_curvature_that_is_too_large_is_refused_before_estimation() -> None:
    model = mlp(100, 50, 3)
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(UsageError, match=r"exact: 5,203 .* need 207 MiB, .* bound of 1\.0 MiB; use kfac .* diagonal"):
        estimate_curvature("exact", model, [vectors(2, 100)], max_bytes=1 << 20)
    assert not calls
    with pytest.raises(UsageError, match=r"100 times .* use diagonal"):
        check_curvature("kfac", model, 10 << 20, count=100)
    assert check_curvature("diagonal", model, 1 << 20, count=3) == 3 * curvature_bytes("diagonal", model)


def test_invalid_input_is_refused() -> None:
    model, inputs = mlp(4, 5, 3), vectors(3, 4)
    with pytest.raises(UsageError, match=r"'kfak' is unknown; did you mean kfac"):
        estimate("kfak", model, inputs)
    with pytest.raises(UsageError, match="vectors 'sign' are not one of unit, signs, fisher"):
        estimate("kfac", model, inputs, vectors="sign")
    with pytest.raises(UsageError, match="no images"):
        estimate_curvature("kfac", model, [])
    with pytest.raises(UsageError, match="mask of 2 for a model of 3 outputs"):
        estimate("kfac", model, inputs, outputs=torch.tensor([True, False]))
    with pytest.raises(UsageError, match="at least one output"):
        estimate("kfac", model, inputs, outputs=torch.zeros(3, dtype=torch.bool))
    with pytest.raises(UsageError, match=r"eval\(\)"):
        estimate("kfac", mlp(4, 5, 3).train(), inputs)
    with pytest.raises(UsageError, match="no parameter of the model trains"):
        estimate("kfac", mlp(4, 5, 3).requires_grad_(False), inputs)


def test_batches_may_carry_arguments() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(4, 5, 3)

        def forward(self, inputs: torch.Tensor, factor: float) -> torch.Tensor:
            return self.inner(factor * inputs)

    model, inputs = Scaled().eval(), vectors(3, 4)
    scaled = estimate_curvature("exact", model, [(inputs, 2.0)])
    plain = estimate_curvature("exact", model.inner, [2.0 * inputs])
    torch.testing.assert_close(scaled.matrix, plain.matrix, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_round_trip(kind: str) -> None:
    model, inputs = convs(), images()
    curvature = estimate(kind, model, inputs)
    file = io.BytesIO()
    torch.save(curvature.state_dict(), file)
    file.seek(0)
    again = load_curvature(torch.load(file, weights_only=True))
    vector = unflatten(vectors(1, sum(p.numel() for p in trained(model).values()))[0], model)
    before, after = curvature.multiply(vector), again.multiply(vector)
    assert type(again) is type(curvature)
    assert (again.samples, again.nbytes) == (curvature.samples, curvature.nbytes)
    assert all(torch.equal(before[name], after[name]) for name in vector)


def test_kinds_can_be_constructed_directly() -> None:
    shapes = {"w": torch.Size((2, 1)), "b": torch.Size((1,))}
    exact = ExactCurvature(shapes, torch.diag(torch.tensor([1.0, 2.0, 3.0])), 1)
    diagonal = DiagonalCurvature({"w": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([3.0])}, 1)
    vector = {"b": torch.tensor([4.0]), "w": torch.tensor([[5.0], [6.0]])}
    assert torch.equal(exact.multiply(vector)["w"], torch.tensor([[5.0], [12.0]]))
    assert torch.equal(diagonal.multiply(vector)["b"], torch.tensor([12.0]))
