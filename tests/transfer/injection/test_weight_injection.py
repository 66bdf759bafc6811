"""Injection: hand-computed transformations, the transfers of each tensor, and all pairs of families."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from nbt.errors import UsageError
from nbt.models.backbone import build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import Teacher, load_teacher
from nbt.models.weights import random_unit_state
from nbt.transfer.injection.outline import outline_of
from nbt.transfer.injection.weight_injection import (
    InjectionReport,
    centre_crop,
    combine,
    inject,
    inject_weights,
    plan_injection,
    resize,
    tli_similarity,
)
from tests.tiny import TinyNet

FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32", "conv3", "conv4"),
)


def perturbed(model: nn.Module, seed: int = 0) -> nn.Module:
    """Moves all values away from their initialisation, including running statistics."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=rng))
            else:
                tensor.add_(3)
    return model


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def by_student(report: InjectionReport) -> dict[str, tuple[str, str]]:
    return {t.student: (t.teacher, t.how) for t in report.transfers}


class TestTransformations:
    def test_crop_takes_the_centre(self) -> None:
        teacher, student = torch.arange(25.0).reshape(5, 5), torch.full((3, 3), -1.0)
        assert centre_crop(teacher, student).tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]

    def test_elements_outside_a_crop_keep_the_values_of_the_student(self) -> None:
        teacher, student = torch.tensor([[7.0]]), torch.arange(9.0).reshape(3, 3)
        assert centre_crop(teacher, student).tolist() == [[0, 1, 2], [3, 7, 5], [6, 7, 8]]
        mixed = centre_crop(torch.arange(4.0).reshape(1, 4), torch.full((3, 2), -1.0))
        assert mixed.tolist() == [[-1, -1], [1, 2], [-1, -1]]

    def test_resize_is_linear_along_every_dimension(self) -> None:
        assert resize(torch.tensor([0.0, 4.0]), (4,)).tolist() == [0, 1, 3, 4]
        assert resize(torch.tensor([0.0, 1.0, 2.0, 3.0]), (2,)).tolist() == [0.5, 2.5]
        assert resize(torch.tensor([[5.0]]), (2, 3)).tolist() == [[5, 5, 5], [5, 5, 5]]
        image = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
        by_torch = F.interpolate(image, size=(8, 3), mode="bilinear", align_corners=False)
        torch.testing.assert_close(resize(image, (3, 2, 8, 3)), by_torch)

    def test_blend_mixes_crop_and_resize(self) -> None:
        teacher, student = torch.tensor([0.0, 4.0]), torch.tensor([10.0, 20.0, 30.0, 40.0])
        assert combine(teacher, student, 1.0).tolist() == [10, 0, 4, 40]
        assert combine(teacher, student, 0.0).tolist() == [0, 1, 3, 4]
        assert combine(teacher, student, 0.75).tolist() == [7.5, 0.25, 3.75, 31]
        assert student.tolist() == [10, 20, 30, 40]

    @pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
    def test_equal_shapes_are_copied_for_any_blend(self, blend: float) -> None:
        teacher = torch.randn(4, 3)
        result = combine(teacher, torch.zeros(4, 3), blend)
        assert torch.equal(result, teacher)
        assert result is not teacher

    def test_queries_keys_and_values_are_transformed_separately(self) -> None:
        teacher = torch.tensor([1.0, 1, 2, 2, 3, 3])
        assert combine(teacher, torch.zeros(12), 0.0, parts=3).tolist() == [1] * 4 + [2] * 4 + [3] * 4
        assert combine(teacher, torch.zeros(3), 0.5, parts=3).tolist() == [1, 2, 3]


class TestInject:
    @pytest.mark.parametrize(
        "name", ["mobilenet_v3_small", "swin_v2_t", "convnext_tiny", "vit_b_32(image_size=64)", "conv4"]
    )
    def test_the_same_architecture_is_copied_exactly(self, name: str) -> None:
        spec = parse_backbone(name)
        teacher = perturbed(build_backbone(spec, 4, image_size=64, seed=1), 1)
        student = build_backbone(spec, 6, image_size=64, seed=2)
        head = state(student.head)
        report = inject(student, teacher)
        for key, tensor in student.unit_state_dict().items():
            assert torch.equal(tensor, teacher.state_dict()[key]), key
        assert all(torch.equal(tensor, head[key]) for key, tensor in student.head.state_dict().items())
        assert (report.similarity, report.coverage) == (1.0, 1.0)
        assert (report.left, report.statistics) == ((), ())

    def test_library_models_with_other_heads(self) -> None:
        teacher, student = perturbed(models.resnet18(num_classes=3)), models.resnet18(num_classes=8)
        before = state(student)
        inject(student, teacher)
        for key, tensor in student.state_dict().items():
            assert torch.equal(tensor, before[key] if key.startswith("fc.") else teacher.state_dict()[key]), key

    def test_the_report_describes_the_transfers(self) -> None:
        student, teacher = TinyNet(width=4), perturbed(TinyNet(width=6))
        student.units[2] = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
        student.units[3] = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
        before = state(student)
        report = inject(student, teacher)
        transfers = by_student(report)
        assert transfers["units.0.0.weight"] == ("units.0.0.weight", "crop + resize")
        assert transfers["units.0.1.bias"] == ("units.0.1.bias", "crop + resize")
        assert transfers["units.0.1.running_mean"] == ("", "none")
        assert transfers["units.3.0.weight"] == ("units.3.0.weight", "copy")
        assert transfers["units.3.1.running_var"] == ("units.3.1.running_var", "copy")
        assert report.statistics == ("units.0.1", "units.1.1")
        assert not any(key.startswith("head") for key in transfers)
        after, teacher_state = student.state_dict(), teacher.state_dict()
        for key, (source, how) in transfers.items():
            expected = before[key] if how == "none" else combine(teacher_state[source], before[key], 0.75)
            assert torch.equal(after[key], expected), key
        assert all(torch.equal(after[key], before[key]) for key in after if key not in transfers)

    def test_statistics_are_not_copied_for_weights_of_another_shape(self) -> None:
        def make(kernel: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(3, 6, kernel), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))

        student, teacher = make(3), perturbed(make(5))
        report = inject(student, teacher)
        assert report.statistics == ("1",)
        assert torch.equal(student[1].weight, teacher[1].weight)
        assert torch.equal(student[1].running_mean, torch.zeros(6))
        assert torch.equal(student[3].running_var, teacher[3].running_var)

    def test_a_bias_that_the_teacher_lacks_is_unchanged(self) -> None:
        student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        bias = student[0].bias.detach().clone()
        report = inject(student, nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU()))
        assert report.left == ("0.bias",)
        assert report.coverage == pytest.approx(108 / 112)
        assert torch.equal(student[0].bias, bias)

    def test_coverage_of_a_crop_counts_its_elements(self) -> None:
        student, teacher = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 2, 1, bias=False)
        assert inject(student, teacher, blend=1.0).coverage == pytest.approx(6 / 108)
        assert inject(student, teacher, blend=0.5).coverage == 1.0

    def test_blend_one_crops_and_blend_zero_resizes(self) -> None:
        teacher = nn.Conv2d(3, 8, 5)
        for blend, how in ((1.0, "crop"), (0.0, "resize")):
            student = nn.Conv2d(3, 4, 3)
            weight = student.weight.detach().clone()
            report = inject(student, teacher, blend=blend)
            assert {t.how for t in report.transfers} == {how}
            expected = centre_crop(teacher.weight, weight) if blend else resize(teacher.weight, weight.shape)
            assert torch.equal(student.weight, expected)

    def test_teacher_modes_and_generator_are_unchanged(self) -> None:
        student, teacher = TinyNet(width=4).train(), perturbed(TinyNet()).eval()
        before, rng_state = state(teacher), torch.get_rng_state()
        inject(student, teacher)
        assert all(torch.equal(tensor, before[key]) for key, tensor in teacher.state_dict().items())
        assert (student.training, teacher.training) == (True, False)
        assert torch.equal(torch.get_rng_state(), rng_state)
        assert all(p.requires_grad for p in student.parameters())

    def test_random_matching_differs(self) -> None:
        teacher = perturbed(models.mobilenet_v2())
        students = [models.mobilenet_v2(width_mult=0.5) for _ in range(2)]
        ordered = inject(students[0], teacher)
        drawn = inject(students[1], teacher, matching="random", generator=torch.Generator().manual_seed(0))
        assert drawn.similarity == ordered.similarity
        assert (ordered.matching, drawn.matching) == ("order", "random")
        assert by_student(drawn) != by_student(ordered)
        assert drawn.coverage == 1.0

    def test_invalid_arguments_and_unrelated_models_are_refused(self) -> None:
        net = TinyNet()
        before = state(net)
        for blend in (-0.1, 1.1, float("nan")):
            with pytest.raises(UsageError, match="blend"):
                inject(net, TinyNet(), blend=blend)
        with pytest.raises(UsageError, match="matching: 'greedy' is not one of order, random"):
            inject(net, TinyNet(), matching="greedy")
        with pytest.raises(UsageError, match="no two layers are of the same kind"):
            inject(net, nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
        with pytest.raises(UsageError, match="no layer that can be matched"):
            inject(net, nn.Linear(3, 2))
        assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())

    def test_the_report_is_plain_data(self) -> None:
        report = inject(TinyNet(width=4), TinyNet())
        read = json.loads(json.dumps(report.to_dict()))
        assert (read["coverage"], read["similarity"]) == (report.coverage, report.similarity)
        assert read["transfers"][0]["teacher_shape"] == [6, 3, 3, 3]
        rows = report.to_table()
        assert rows[0] == {
            "student": "units.0.0",
            "shape": "4x3x3x3",
            "teacher": "units.0.0",
            "from shape": "6x3x3x3",
            "how": "crop + resize",
            "score": "0.667",
        }
        assert [row["student"] for row in rows][:3] == ["units.0.0", "units.0.1", "units.1.0"]


class TestVisionTransformers:
    def test_positions_for_another_number_of_patches_are_not_transferred(self) -> None:
        small, large = (outline_of(parse_backbone(f"vit_b_32(image_size={size})")) for size in (64, 96))
        report = plan_injection(small, large)
        assert report.similarity == 1.0
        assert report.left == ("units.0.pos_embedding",)
        assert by_student(report)["units.0.class_token"] == ("units.0.class_token", "copy")

    def test_blocks_are_matched_with_blocks(self) -> None:
        report = plan_injection(outline_of(parse_backbone("vit_b_32")), outline_of(parse_backbone("swin_t")))
        pairs = [
            (t.layer, t.teacher_layer, t.parts) for t in report.transfers if t.teacher and "self_attention" in t.layer
        ]
        assert pairs
        assert {teacher.rpartition(".")[2] for _, teacher, parts in pairs if parts == 3} == {"qkv"}
        assert {teacher.rpartition(".")[2] for _, teacher, parts in pairs if parts == 1} == {"proj"}
        assert "units.0.class_token" in report.left


class TestInjectWeights:
    def test_other_tensors_keep_the_initialisation_of_the_seed(self) -> None:
        student, source = parse_backbone("resnet18"), parse_backbone("mobilenet_v2(width_mult=0.25)")
        teacher_state = {key: tensor + 0.5 for key, tensor in random_unit_state(source, 64, 7).items()}
        teacher = Teacher("t", source, teacher_state)
        w0, report = inject_weights(student, 64, teacher, seed=3)
        fresh = random_unit_state(student, 64, 3)
        assert list(w0) == list(fresh)
        assert report.left
        assert report.coverage < 1.0
        for transfer in report.transfers:
            assert torch.equal(w0[transfer.student], fresh[transfer.student]) == (transfer.how == "none")
        model = build_backbone(student, 3, image_size=64)
        model.load_pretrained(w0)
        again, _ = inject_weights(student, 64, teacher, seed=3)
        other, _ = inject_weights(student, 64, teacher, seed=4)
        assert all(torch.equal(w0[key], again[key]) for key in w0)
        assert not all(torch.equal(w0[key], other[key]) for key in w0)

    def test_unusable_statistics_of_the_teacher_are_not_copied(self) -> None:
        spec = parse_backbone("mobilenet_v2(width_mult=0.25)")
        state = {key: tensor + 0.5 for key, tensor in random_unit_state(spec, 64, 7).items()}
        w0, report = inject_weights(spec, 64, Teacher("t", spec, state, ("units.0.1", "units.3.conv.0.1")))
        assert report.statistics == ("units.0.1", "units.3.conv.0.1"), "all others are equal in both"
        assert not w0["units.0.1.running_mean"].any() and bool((w0["units.1.conv.0.1.running_mean"] == 0.5).all())
        assert torch.equal(w0["units.0.1.weight"], state["units.0.1.weight"])

    def test_an_invalid_image_size_is_refused(self) -> None:
        source = parse_backbone("conv3")
        with pytest.raises(UsageError, match="does not work with images of 8 px"):
            inject_weights(parse_backbone("alexnet"), 8, Teacher("t", source, random_unit_state(source, 28, 0)))

    def test_real_weights_are_injected_into_another_width(self, shared: Path) -> None:
        teacher = load_teacher(f"mobilenet_v2={shared / 'weights/mobilenet_v2-imagenet.pth'}")
        w0, report = inject_weights(parse_backbone("mobilenet_v2(width_mult=0.75)"), 64, teacher)
        assert report.similarity > 0.6
        assert report.coverage == 1.0
        assert all(torch.isfinite(tensor).all() for tensor in w0.values())
        stem = by_student(report)["units.0.0.weight"]
        assert stem == ("units.0.0.weight", "crop + resize")


def _plan_and_apply(student: str, teacher: str) -> None:
    specs = parse_backbone(student), parse_backbone(teacher)
    kinds = [{layer.family for layer in outline_of(spec).layers()} for spec in specs]
    if not kinds[0] & kinds[1]:
        with pytest.raises(UsageError, match="no two layers are of the same kind"):
            plan_injection(*(outline_of(spec) for spec in specs))
        return
    report = plan_injection(*(outline_of(spec) for spec in specs))
    assert 0.0 < report.similarity <= 1.0
    assert 0.0 < report.coverage <= 1.0
    for transfer in report.transfers:
        if transfer.how != "none":
            student_tensor, teacher_tensor = torch.zeros(transfer.shape), torch.ones(transfer.teacher_shape)
            adapted = combine(teacher_tensor, student_tensor, report.blend, transfer.parts)
            assert adapted.shape == student_tensor.shape


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("conv3", "vit_b_32"),
        ("vit_b_32", "mobilenet_v2"),
        ("swin_t", "convnext_tiny"),
        ("squeezenet1_1", "densenet121"),
    ],
)
def test_some_families_are_injected_into_others(student: str, teacher: str) -> None:
    _plan_and_apply(student, teacher)


@pytest.mark.slow
@pytest.mark.parametrize("student", FAMILIES)
def test_every_family_is_injected_into_every_other(student: str) -> None:
    for teacher in FAMILIES:
        _plan_and_apply(student, teacher)


@pytest.mark.slow
def test_every_pair_of_families_is_scored_between_zero_and_one() -> None:
    outlines = {name: outline_of(parse_backbone(name)) for name in FAMILIES}
    for student, teacher in itertools.product(FAMILIES, FAMILIES):
        score = tli_similarity(outlines[student], outlines[teacher])
        assert 0.0 <= score <= 1.0
        assert (score == 1.0) >= (student == teacher)


def test_injected_weights_do_not_share_memory_with_the_teacher() -> None:
    teacher = perturbed(TinyNet())
    student = copy.deepcopy(teacher)
    inject(student, teacher)
    with torch.no_grad():
        student.units[0][0].weight.zero_()
    assert teacher.units[0][0].weight.abs().sum() > 0
