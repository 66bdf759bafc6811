from __future__ import annotations

import pytest
import torch
from torch import nn

from nbt.transfer.curvature.estimate import estimate_curvature
from nbt.transfer.curvature.kfac import KfacCurvature
from tests.transfer.curvature.curvature_models import convs, dense, images, indices_of, jacobian, mlp, trained, vectors

CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def exact_matrix(model: nn.Module, inputs: torch.Tensor, outputs: torch.Tensor | None = None) -> torch.Tensor:
    rows = jacobian(model, inputs)
    rows = rows if outputs is None else rows[:, outputs]
    return torch.einsum("ncp,ncq->pq", rows, rows)


def kfac(model: nn.Module, inputs: torch.Tensor, vectors_: str = "unit", **options: object) -> KfacCurvature:
    curvature = estimate_curvature("kfac", model, inputs.split(3), vectors=vectors_, **options)  # type: ignore[arg-type]
    assert isinstance(curvature, KfacCurvature)
    return curvature


def block(matrix: torch.Tensor, model: nn.Module, *names: str) -> torch.Tensor:
    indices = indices_of(model, *names)
    return matrix[indices][:, indices]


def test_one_sample_is_exact_layer_by_layer() -> None:
    model, inputs = mlp(4, 5, 3), vectors(1, 4)
    exact, approximation = exact_matrix(model, inputs), dense(kfac(model, inputs), model)
    for layer in ("0", "2"):
        names = (f"{layer}.weight", f"{layer}.bias")
        torch.testing.assert_close(block(approximation, model, *names), block(exact, model, *names), **CLOSE)
    assert approximation[indices_of(model, "0.weight")][:, indices_of(model, "2.weight")].count_nonzero() == 0


def test_layers_whose_gradients_do_not_depend_on_their_inputs_are_exact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double().eval()  # without nonlinearity g is constant
    inputs = vectors(7, 4)
    exact, approximation = exact_matrix(model, inputs), dense(kfac(model, inputs), model)
    for layer in ("0", "1"):
        names = (f"{layer}.weight", f"{layer}.bias")
        torch.testing.assert_close(block(approximation, model, *names), block(exact, model, *names), **CLOSE)


@pytest.mark.parametrize("vectors_", ["unit", "signs"])
def test_the_head_is_exact_including_rows_of_unseen_classes(vectors_: str) -> None:
    model, inputs = mlp(4, 5, 4), vectors(7, 4)
    for mask in (torch.tensor([True, True, False, True]), torch.ones(4, dtype=torch.bool)):
        exact = exact_matrix(model, inputs, mask)
        head = ("2.weight", "2.bias")
        approximation = dense(kfac(model, inputs, vectors_, outputs=mask), model)
        torch.testing.assert_close(block(approximation, model, *head), block(exact, model, *head), **CLOSE)
    # The row of class 3, which has no samples, has the same curvature as the others.
    head_g = kfac(model, inputs, vectors_).layers[1].outputs[0]
    torch.testing.assert_close(head_g, torch.eye(4, dtype=torch.double))


def test_the_head_factor_of_the_fisher_matrix_is_its_expectation() -> None:
    model, inputs = mlp(4, 5, 3), vectors(7, 4)
    p = model(inputs).detach().softmax(dim=1)
    expected = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(dim=0)
    torch.testing.assert_close(kfac(model, inputs, "fisher").layers[1].outputs[0], expected, **CLOSE)


def test_factors_of_a_convolution_are_those_of_kfc() -> None:
    model, inputs = convs(), images()
    curvature = kfac(model, inputs)
    blocks = {next(iter(b.shapes)): b for b in curvature.layers}
    assert blocks["body.3.weight"].inputs.shape == (2, 13, 13)
    assert blocks["body.3.weight"].outputs.shape == (2, 4, 4)
    assert blocks["body.6.weight"].inputs.shape == (8, 10, 10)
    conv = model.body[0]
    patches = nn.functional.unfold(inputs, 3, padding=1, stride=2)  # (n, 18, T)
    a = torch.einsum("nit,njt->ij", patches, patches) / (len(inputs) * patches.shape[2])
    torch.testing.assert_close(blocks["body.0.weight"].inputs[0], a, **CLOSE)
    g = torch.zeros(4, 4, dtype=torch.double)
    for sample in inputs:
        hidden = conv(sample[None]).detach().requires_grad_()
        tail = nn.Sequential(*list(model.body)[1:])
        logits = model.head(model.norm((tail(hidden.clone()) * model.scale).flatten(2).mT).mean(dim=1))[0]
        for logit in logits:
            (gradient,) = torch.autograd.grad(logit, hidden, retain_graph=True)
            g += torch.einsum("nohw,nphw->op", gradient, gradient) / len(inputs)
    torch.testing.assert_close(blocks["body.0.weight"].outputs[0], g, **CLOSE)


def test_a_convolution_of_one_position_is_exact_for_one_sample_in_every_group() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6, 3)).double().eval()
    inputs = torch.randn(1, 4, 3, 3, dtype=torch.double)
    exact, approximation = exact_matrix(model, inputs), dense(kfac(model, inputs), model)
    weights = indices_of(model, "0.weight")
    biases = indices_of(model, "0.bias")
    for group in range(2):
        indices = torch.cat([weights.view(2, -1)[group], biases.view(2, -1)[group]])
        torch.testing.assert_close(approximation[indices][:, indices], exact[indices][:, indices], **CLOSE)
    between_groups = approximation[weights.view(2, -1)[0]][:, weights.view(2, -1)[1]]
    assert between_groups.count_nonzero() == 0


@pytest.mark.parametrize("name", ["body.1", "body.4", "body.7", "norm"])
def test_norms_have_their_full_block(name: str) -> None:
    model, inputs = convs(), images()
    both = (f"{name}.weight", f"{name}.bias")
    exact, approximation = exact_matrix(model, inputs), dense(kfac(model, inputs), model)
    torch.testing.assert_close(block(approximation, model, *both), block(exact, model, *both), **CLOSE)
    assert block(approximation, model, *both).count_nonzero() > len(indices_of(model, *both))


def test_all_other_parameters_have_their_diagonal() -> None:
    model, inputs = convs(), images()
    curvature = kfac(model, inputs)
    assert curvature.rest.shapes.keys() == {"scale"}
    exact = block(exact_matrix(model, inputs), model, "scale")
    torch.testing.assert_close(block(dense(curvature, model), model, "scale"), torch.diag(exact.diag()), **CLOSE)


class ChannelsNorm(nn.LayerNorm):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.movedim(1, -1)).movedim(-1, 1)


ChannelsNorm.__name__ = "LayerNorm2d"


def test_layer_norm_over_channels_has_its_full_block() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), ChannelsNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 7 * 6, 3))
    model, inputs = model.double().eval(), images()
    exact, approximation = exact_matrix(model, inputs), dense(kfac(model, inputs), model)
    both = ("1.weight", "1.bias")
    torch.testing.assert_close(block(approximation, model, *both), block(exact, model, *both), **CLOSE)
    assert not kfac(model, inputs).rest.shapes


def test_channels_last_gives_the_same_curvature() -> None:
    model, inputs = convs(), images()
    before = dense(kfac(model, inputs), model)
    after = dense(kfac(model.to(memory_format=torch.channels_last), inputs), model)
    torch.testing.assert_close(before, after, **CLOSE)


def test_signs_are_unbiased() -> None:
    model, inputs = mlp(3, 4, 3), vectors(4, 3)
    expected = dense(kfac(model, inputs), model)
    rng = torch.Generator().manual_seed(0)
    draws = torch.stack([dense(kfac(model, inputs, "signs", generator=rng), model) for _ in range(300)])
    error = (draws.mean(dim=0) - expected).abs()
    assert (error <= 5 * draws.std(dim=0) / 300**0.5 + 1e-9).all()


def test_merged_factors_are_biased_by_the_covariance_of_the_factors() -> None:
    model = mlp(4, 5, 3)
    inputs = torch.cat([vectors(3, 4), 3.0 + vectors(6, 4, seed=2)])
    parts = [kfac(model, inputs[:3]), kfac(model, inputs[3:])]
    merged = parts[0].plus(parts[1])
    separate = dense(parts[0], model) + dense(parts[1], model)
    assert merged.samples == 9
    torch.testing.assert_close(dense(merged, model), dense(kfac(model, inputs), model), **CLOSE)
    # A mean of Kronecker products is not the product of means ...
    first = ("0.weight", "0.bias")
    bias = block(dense(merged, model) - separate, model, *first)
    assert bias.norm() > 0.05 * block(separate, model, *first).norm()
    a = parts[0].layers[0].inputs[0] - parts[1].layers[0].inputs[0]
    g = parts[0].layers[0].outputs[0] - parts[1].layers[0].outputs[0]
    order = torch.cat([indices_of(model, "0.weight").view(5, 4), indices_of(model, "0.bias")[:, None]], dim=1).flatten()
    expected = -9 * (3 / 9) * (6 / 9) * torch.kron(g, a)
    torch.testing.assert_close((dense(merged, model) - separate)[order][:, order], expected, **CLOSE)
    # ... unless one of the factors is the same, as in the head.
    head = ("2.weight", "2.bias")
    torch.testing.assert_close(block(dense(merged, model), model, *head), block(separate, model, *head), **CLOSE)


def test_merging_adds_norms_and_the_rest_exactly() -> None:
    model, inputs = convs(), images(6)
    merged = dense(kfac(model, inputs[:2]).plus(kfac(model, inputs[2:])), model)
    together = dense(kfac(model, inputs), model)
    for names in (("body.1.weight", "body.1.bias"), ("norm.weight", "norm.bias"), ("scale",)):
        torch.testing.assert_close(block(merged, model, *names), block(together, model, *names), **CLOSE)


def test_calls_of_a_layer_called_twice_count_as_positions() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(inputs) + self.layer(-inputs))

    torch.manual_seed(0)
    model, inputs = Twice().double().eval(), vectors(6, 4)
    layer = kfac(model, inputs).layers[0]
    ones = torch.ones(6, 1, dtype=torch.double)
    a = torch.cat([torch.cat([inputs, ones], dim=1), torch.cat([-inputs, ones], dim=1)])
    torch.testing.assert_close(layer.inputs[0], a.mT @ a / 12, **CLOSE)
    torch.testing.assert_close(
        layer.outputs[0], 2 * model.head.weight.detach().mT @ model.head.weight.detach(), **CLOSE
    )
    assert set(trained(model)) == set(kfac(model, inputs).shapes)
