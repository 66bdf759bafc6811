from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nbt.errors import UsageError
from nbt.models.backbone import Backbone, build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.transfer.linearize import FirstOrder, Linearized, check_linearizable, linearize
from tests.tiny import TinyNet

# One model for each kind of layer: nbt's encoders, depthwise convolution, squeeze and excitation with hard activations,
# channel shuffle, concatenation, layer norm, attention in one layer and in windows.
QUICK = (
    "conv3",
    "mobilenet_v2(width_mult=0.35)",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "resnet18",
)
SLOW = (
    *(
        "conv4",
        "alexnet",
        "vgg11_bn",
        "densenet121",
        "efficientnet_b0",
        "mnasnet0_5",
        "regnet_y_400mf",
        "convnext_tiny",
    ),
    *("vit_b_16(image_size=64)", "swin_t", "swin_v2_t", "googlenet", "inception_v3", "maxvit_t(input_size=(224, 224))"),
)
SIZES = {"conv3": 28, "conv4": 84, "inception_v3": 80, "maxvit_t(input_size=(224, 224))": 224}


def build(name: str) -> tuple[Backbone, torch.Tensor]:
    size = SIZES.get(name, 64 if "64" in name or name in ("alexnet", "squeezenet1_1") else 32)
    model = build_backbone(parse_backbone(name), 3, image_size=size).double()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, images


@torch.no_grad()
def move(module: nn.Module, scale: float = 0.02, seed: int = 0) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = parameter.std() if parameter.numel() > 1 else parameter.abs().sum()
        size = scale * spread.clamp_min(0.1)
        parameter.add_(torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype) * size)


def assert_first_order(model: Backbone, images: torch.Tensor) -> None:
    """Checks f0 + J w against the network: its value, its linearity to machine precision, and J by its transpose."""
    linear = linearize(model)
    with torch.no_grad():
        origin = model(images)
        torch.testing.assert_close(linear(images), origin)
        move(linear.w, scale=1.0)
        once = linear(images) - origin
        for parameter in linear.w.parameters():
            parameter.mul_(3.7)
    output = linear(images)
    change = output.detach() - origin
    torch.testing.assert_close(change, 3.7 * once, rtol=1e-9, atol=1e-9 * float(change.abs().max()))

    direction = torch.randn(origin.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (output * direction).sum().backward()
    expected = torch.autograd.grad((model(images) * direction).sum(), list(model.parameters()), allow_unused=True)
    gradients = [parameter.grad for parameter in linear.w.parameters()]
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference)
    # <g, J w> = <J' g, w>: forward and reverse mode, which are computed independently, agree.
    pairs = zip(linear.w.parameters(), expected, strict=True)
    adjoint = sum(float((w.detach() * reference).sum()) for w, reference in pairs if reference is not None)
    assert adjoint == pytest.approx(float((change * direction).sum()), rel=1e-8)


class TestExpansion:
    @pytest.mark.parametrize("name", QUICK)
    def test_output_is_the_first_order_expansion(self, name: str) -> None:
        assert_first_order(*build(name))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", SLOW)
    def test_output_is_the_first_order_expansion_for_every_family(self, name: str) -> None:
        assert_first_order(*build(name))

    def test_small_steps_agree_with_the_network(self) -> None:
        model = TinyNet().double().eval()
        images = torch.rand(4, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        linear = linearize(model)
        moved = copy.deepcopy(model)
        move(linear.w, scale=1e-6)
        with torch.no_grad():
            for parameter, change in zip(moved.parameters(), linear.w.parameters(), strict=True):
                parameter.add_(change)
            origin, reference = model(images), moved(images)
        error = (linear(images) - reference).abs().max() / (reference - origin).abs().max()
        assert error < 1e-4

    def test_only_trainable_parameters_are_expanded(self) -> None:
        model = TinyNet()
        model.units[:2].requires_grad_(False)
        linear = linearize(model)
        images = torch.rand(2, 3, 12, 12)
        before = linear(images).detach()
        with torch.no_grad():
            next(iter(linear.w.units[0].parameters())).fill_(1.0)
        torch.testing.assert_close(linear(images).detach(), before)
        linear(images).sum().backward()
        trained = {name for name, parameter in linear.w.named_parameters() if parameter.grad is not None}
        assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def test_expansion_stays_in_evaluation_mode_and_does_not_modify_the_model(self) -> None:
        model = TinyNet().train()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        linear = linearize(model).train()
        linear(torch.rand(4, 3, 12, 12)).sum().backward()
        assert not any(module.training for module in linear.modules())
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
        for name, tensor in (*model.state_dict().items(), *linear.base.state_dict().items()):
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)

    def test_a_zero_head_is_refused_with_the_reason(self) -> None:
        model = TinyNet()
        nn.init.zeros_(model.head.weight)
        with pytest.raises(UsageError, match="linear probe"):
            linearize(model)

    def test_a_row_of_zeros_is_refused(self) -> None:
        """Its class would get a linear probe."""
        model = TinyNet()
        nn.init.zeros_(model.head.weight[1:2])
        with pytest.raises(UsageError, match="0 in row 1"):
            linearize(model)

    def test_with_a_zero_head_the_backbone_has_no_effect(self) -> None:
        """Shows why a zero head is refused."""
        model = TinyNet()
        nn.init.zeros_(model.head.weight)
        linear = Linearized(model.eval(), copy.deepcopy(model))
        linear(torch.rand(2, 3, 12, 12)).sum().backward()
        assert all(not parameter.grad.any() for parameter in linear.w.units.parameters())
        assert linear.w.head.weight.grad.any()


class TestFirstOrder:
    def test_output_is_that_of_the_expansion_with_the_weights_of_the_model(self) -> None:
        model, images = build("conv3")
        network = FirstOrder(model)
        linear = linearize(model)
        move(model)
        with torch.no_grad():
            origins = network.base.parameters()
            for w, parameter, origin in zip(linear.w.parameters(), model.parameters(), origins, strict=True):
                w.copy_(parameter - origin)
        torch.testing.assert_close(network(images), linear(images))
        network(images).sum().backward()
        linear(images).sum().backward()
        for w, parameter in zip(linear.w.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, w.grad)

    def test_forward_pass_starts_at_any_unit(self) -> None:
        model, images = build("conv3")
        model.units[:2].requires_grad_(False)
        network = FirstOrder(model)
        move(model.units[2])
        move(model.head)
        with torch.no_grad():
            hidden = model.forward_units(images, 0, 2)
        torch.testing.assert_close(network(hidden, 2), network(images))

    def test_temporarily_frozen_parameters_are_expanded(self) -> None:
        model, images = build("conv3")
        network = FirstOrder(model)
        move(model)
        before = network(images).detach()
        model.units.requires_grad_(False)
        torch.testing.assert_close(network(images).detach(), before)
        network(images).sum().backward()
        assert model.head.weight.grad is not None
        assert all(parameter.grad is None for parameter in model.units.parameters())

    def test_state_dict_round_trip_through_a_file(self) -> None:
        model, images = build("conv3")
        network = FirstOrder(model)
        move(model)
        other = FirstOrder(build("conv3")[0])
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other(images), network(images))


class Rounded(nn.Module):
    """A head after a custom operation that PyTorch cannot differentiate in forward mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(_StraightThrough.apply(self.first(inputs)))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.round()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class TestCheckLinearizable:
    def test_a_model_without_forward_mode_derivative_is_refused_by_name(self) -> None:
        with pytest.raises(UsageError, match="rounded_net cannot be linearised"):
            check_linearizable(Rounded(), torch.rand(2, 3), name="rounded_net")

    def test_the_model_is_unchanged(self) -> None:
        model = TinyNet().train()
        check_linearizable(model, torch.rand(2, 3, 12, 12), name="tiny")
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_out_of_memory_errors_are_passed_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def raise_out_of_memory(*args: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Linearized, "forward", raise_out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            check_linearizable(TinyNet(), torch.rand(2, 3, 12, 12), name="tiny")
