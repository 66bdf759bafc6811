"""Matching: hand-computed values, properties of the similarity, and outlines of every kind of model."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from nbt.errors import UsageError
from nbt.models.backbone import build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.transfer.injection.matching import (
    align_sequences,
    layer_score,
    match_at_random,
    match_in_order,
    matching_value,
    normalised_similarity,
)
from nbt.transfer.injection.outline import Block, Layer, TensorInfo, outline_of, read_outline
from nbt.transfer.injection.weight_injection import tli_similarity
from tests.tiny import TinyNet

Shape = tuple[int, ...]


def layer(name: str, family: str, shape: Shape) -> Layer:
    return Layer(name, family, {"weight": TensorInfo(f"{name}.weight", shape, True)})


def network(*units: list[tuple[str, Shape]]) -> Block:
    blocks = []
    for u, members in enumerate(units):
        children = tuple(layer(f"{u}.{i}", family, shape) for i, (family, shape) in enumerate(members))
        blocks.append(Block(str(u), children))
    return Block("net", tuple(blocks))


def convs(*widths: int) -> list[tuple[str, Shape]]:
    return [("convolution", (width, 4, 3, 3)) for width in widths]


member = st.sampled_from(
    [("convolution", (4, 4, 3, 3)), ("convolution", (8, 4, 3, 3)), ("convolution", (8, 8, 1, 1)), ("linear", (6, 4))]
)
networks = st.lists(st.lists(member, min_size=1, max_size=4), min_size=1, max_size=4).map(lambda u: network(*u))
matrices = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).choice([0.0, 0.2, 0.5, 0.9, 1.0], size=(seed % 5 + 1, seed // 5 % 4 + 1))
)


def brute_force(scores: np.ndarray, i: int, j: int) -> float:
    """Returns the value by its defining recursion: skip a teacher or a student layer, or end a run of any length."""
    if i == 0 or j == 0:
        return 0.0
    best = max(brute_force(scores, i - 1, j), brute_force(scores, i, j - 1))
    for start in range(i):
        run = scores[start:i, j - 1]
        if (run > 0).all():
            best = max(best, brute_force(scores, start, j - 1) + run.sum() / math.sqrt(len(run)))
    return best


class TestScore:
    @pytest.mark.parametrize(
        ("a", "b", "score"),
        [
            ((64, 32, 3, 3), (64, 32, 3, 3), 1.0),
            ((64, 32, 3, 3), (32, 32, 3, 3), 0.5),
            ((64, 32, 3, 3), (32, 64, 1, 3), 0.5 * 0.5 / 3),
            ((64, 32), (64, 32, 1, 1), 0.0),
            ((7,), (7,), 1.0),
        ],
    )
    def test_scores_computed_by_hand(self, a: Shape, b: Shape, score: float) -> None:
        assert layer_score(a, b) == pytest.approx(score)
        assert layer_score(b, a) == layer_score(a, b)


class TestRuns:
    def test_a_run_of_two_gains_the_sum_over_the_root_of_two(self) -> None:
        value, partner = align_sequences(np.array([[1.0], [0.5]]))
        assert value == pytest.approx(1.5 / math.sqrt(2))
        assert partner.tolist() == [0, 0]

    def test_a_short_run_is_better_than_a_longer_one_with_low_scores(self) -> None:
        value, partner = align_sequences(np.array([[1.0], [0.1]]))
        assert value == 1.0
        assert partner.tolist() == [0, -1]

    def test_a_run_does_not_include_forbidden_pairs(self) -> None:
        value, partner = align_sequences(np.array([[1.0], [0.0], [1.0]]))
        assert value == 1.0
        assert (partner >= 0).sum() == 1

    def test_crossing_pairs_exclude_each_other(self) -> None:
        value, partner = align_sequences(np.array([[0.0, 0.6], [1.0, 0.0]]))
        assert value == 1.0
        assert partner.tolist() == [-1, 0]

    def test_a_pair_is_skipped_for_a_higher_total(self) -> None:
        scores = np.array([[0.0, 0.9, 0.5], [0.8, 0.0, 0.7]])
        value, partner = align_sequences(scores)
        assert value == pytest.approx(1.6)
        assert partner.tolist() == [1, 2]

    @given(matrices)
    def test_alignment_agrees_with_the_definition_and_keeps_the_order(self, scores: np.ndarray) -> None:
        value, partner = align_sequences(scores)
        assert value == pytest.approx(brute_force(scores, *scores.shape))
        matched = [(i, j) for i, j in enumerate(partner.tolist()) if j >= 0]
        assert all(scores[i, j] > 0 for i, j in matched)
        assert all(j <= k for (_, j), (_, k) in pairwise(matched))
        gain = 0.0
        for teacher in {j for _, j in matched}:
            run = [i for i, j in matched if j == teacher]
            assert run == list(range(run[0], run[-1] + 1))
            gain += scores[run, teacher].sum() / math.sqrt(len(run))
        assert gain == pytest.approx(value)


class TestNetworks:
    def test_value_of_two_units_by_hand(self) -> None:
        student, teacher = network(convs(8, 8), convs(16)), network(convs(8), convs(8))
        # The first unit's two layers share one teacher layer, those of the second unit one of half the width.
        assert matching_value(student, teacher) == pytest.approx(2 / math.sqrt(2) + 0.5)
        assert normalised_similarity(matching_value(student, teacher), student) == pytest.approx(
            (math.sqrt(2) + 0.5) / 3
        )

    def test_similarity_is_not_symmetric(self) -> None:
        small, large = network(convs(8)), network(convs(8), convs(8), convs(8))
        assert tli_similarity(small, large) == 1.0
        assert tli_similarity(large, small) == pytest.approx(math.sqrt(3) / 3)

    def test_layers_pair_only_within_a_family(self) -> None:
        student, teacher = network([("linear", (8, 8))]), network([("attention out", (8, 8))])
        assert tli_similarity(student, teacher) == 0.0
        assert match_in_order(student, teacher).layers == ()

    @given(networks)
    def test_self_similarity_is_exactly_one_and_the_matching_the_identity(self, net: Block) -> None:
        assert tli_similarity(net, net) == 1.0
        assert [(p.student.name, p.teacher.name) for p in match_in_order(net, net).layers] == [
            (x.name,) * 2 for x in net.layers()
        ]

    @given(networks, networks)
    def test_similarity_is_between_zero_and_one_and_the_sum_of_gains(self, student: Block, teacher: Block) -> None:
        matching = match_in_order(student, teacher)
        assert 0.0 <= tli_similarity(student, teacher) <= 1.0
        assert matching.value == matching_value(student, teacher)
        assert sum(pair.score for pair in matching.layers) >= matching.value - 1e-9
        assert all(pair.student.family == pair.teacher.family for pair in matching.layers)
        names = [pair.student.name for pair in matching.layers]
        assert len(set(names)) == len(names)
        units = [int(teacher_unit.name) for _, teacher_unit in matching.blocks[1:]]
        assert units == sorted(units)

    @given(networks, networks, st.data())
    def test_deleting_a_teacher_layer_never_raises_the_value(self, student: Block, teacher: Block, data: Any) -> None:
        unit = data.draw(st.integers(0, len(teacher.children) - 1))
        block = teacher.children[unit]
        assert isinstance(block, Block)
        deleted = data.draw(st.integers(0, len(block.children) - 1))
        rest = dataclasses.replace(block, children=block.children[:deleted] + block.children[deleted + 1 :])
        units = (*teacher.children[:unit], *((rest,) if rest.children else ()), *teacher.children[unit + 1 :])
        assert matching_value(student, Block("cut", units)) <= matching_value(student, teacher) + 1e-9

    @given(networks, networks, st.integers(0, 5))
    def test_random_pairs_stay_within_the_family(self, student: Block, teacher: Block, seed: int) -> None:
        matching = match_at_random(student, teacher, torch.Generator().manual_seed(seed))
        kinds = {(x.family, len(x.shape)) for x in teacher.layers()}
        assert [p.student.name for p in matching.layers] == [
            x.name for x in student.layers() if (x.family, len(x.shape)) in kinds
        ]
        assert all(p.student.family == p.teacher.family for p in matching.layers)

    def test_random_pairs_use_their_generator_only(self) -> None:
        net = network(convs(*range(1, 12)))
        before = torch.get_rng_state()
        draws = [match_at_random(net, net, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        first, again, other = ([pair.teacher.name for pair in draw.layers] for draw in draws)
        assert first == again != other
        assert first != sorted(first, key=lambda name: int(name.split(".")[1]))
        assert torch.equal(torch.get_rng_state(), before)


class TestOutlines:
    def test_outlines_of_a_library_model_and_its_backbone_are_equal(self) -> None:
        spec = parse_backbone("resnet18")
        by_spec = outline_of(spec, 64)
        by_backbone = read_outline(build_backbone(spec, 3, image_size=64))
        with torch.device("meta"):
            by_model = read_outline(models.resnet18(num_classes=5))
        assert by_spec.signature == by_backbone.signature == by_model.signature
        keys = {info.key for x in by_model.layers() for part in x.with_norms() for info in part.tensors.values()}
        assert keys == {key for key in models.resnet18().state_dict() if not key.startswith("fc.")}
        assert all(k.startswith("units.") for x in by_spec.layers() for k in (info.key for info in x.tensors.values()))

    def test_normalisations_belong_to_the_layer_before_them(self) -> None:
        [first, second, third, fourth] = read_outline(TinyNet()).layers()
        assert [x.family for x in (first, *first.after)] == ["convolution", "batch norm"]
        assert set(first.after[0].tensors) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
        assert third.after == ()
        assert (second.name, fourth.after[0].name) == ("units.1.0", "units.3.1")

    def test_norms_before_the_first_layer_and_norms_alone(self) -> None:
        outline = outline_of(parse_backbone("vit_b_32(image_size=64)"))
        attention = next(x for x in outline.layers() if x.family == "attention in")
        assert [x.family for x in attention.before] == ["layer norm"]
        assert (attention.parts, attention.shape) == (3, (2304, 768))
        assert [x.family for x in outline.children[-1].layers()] == ["layer norm"]
        unassigned = {info.key for block in outline.blocks() for info in block.unassigned.values()}
        assert unassigned == {"units.0.class_token", "units.0.pos_embedding"}

    @pytest.mark.parametrize("name", ["swin_t", "maxvit_t"])
    def test_fused_attention_is_a_separate_family(self, name: str) -> None:
        parts = {x.family: x.parts for x in outline_of(parse_backbone(name)).layers()}
        assert (parts["attention in"], parts["attention out"], parts["linear"]) == (3, 1, 1)

    def test_depthwise_convolution_is_a_separate_family(self) -> None:
        families = [x.family for x in outline_of(parse_backbone("mobilenet_v2"), 64).children[2].layers()]
        assert families == ["convolution", "depthwise convolution", "convolution"]

    def test_similarities_of_the_original_paper_are_reproduced(self) -> None:
        """The paper reports .852 for spnasnet as the teacher of mnasnet, and .729 for the reverse."""
        pytest.importorskip("timm")
        mnasnet, spnasnet = (outline_of(parse_backbone(f"timm:{name}")) for name in ("mnasnet_100", "spnasnet_100"))
        assert tli_similarity(mnasnet, spnasnet) == pytest.approx(0.852, abs=0.01)
        assert tli_similarity(spnasnet, mnasnet) == pytest.approx(0.729, abs=0.01)

    def test_any_other_module_is_read_by_its_tree_without_its_last_linear_layer(self) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Module()
                self.body.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
                self.body.stages = nn.ModuleList(
                    [nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8))]
                )
                self.body.scale = nn.Parameter(torch.ones(3))
                self.body.classifier = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2))

        outline = read_outline(Wrapped())
        assert [unit.name for unit in outline.children] == [
            "body.stem",
            "body.stages.0",
            "body.stages.1",
            "body.classifier",
        ]
        assert [x.name for x in outline.layers()] == [
            "body.stem.0",
            "body.stages.0",
            "body.stages.1.0",
            "body.classifier.0",
        ]
        assert list(outline.unassigned) == ["body.scale"]

    def test_an_example_input_gives_the_order_of_the_calls(self) -> None:
        class Backwards(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(8, 2)
                self.second = nn.Conv2d(4, 8, 1)
                self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return self.head(self.second(self.first(images)).mean((2, 3)))

        model = Backwards()
        model.first.eval()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        rng_state = torch.get_rng_state()
        assert [x.name for x in read_outline(model).layers()] == ["head", "second", "first.0"]
        assert [x.name for x in read_outline(model, torch.zeros(2, 3, 8, 8)).layers()] == ["first.0", "second"]
        assert torch.equal(torch.get_rng_state(), rng_state)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert (model.training, model.first.training, model.second.training) == (True, False, True)

    @pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(3, 2), nn.Sequential(nn.Flatten(), nn.Linear(3, 2))])
    def test_a_model_without_a_layer_to_match_is_refused(self, model: nn.Module) -> None:
        with pytest.raises(UsageError, match="no layer that can be matched"):
            tli_similarity(model, TinyNet())
        with pytest.raises(UsageError, match="no layer that can be matched"):
            tli_similarity(TinyNet(), model)


def test_scoring_has_no_side_effects() -> None:
    student, teacher = models.densenet121(num_classes=3), TinyNet().eval()
    student.features.denseblock1.eval()
    modes = [module.training for module in student.modules()]
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    rng_state = torch.get_rng_state()
    assert 0.0 < tli_similarity(student, teacher) < 1.0
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert list(student.state_dict()) == list(before)
    assert not teacher.training
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert all(p.requires_grad and p.grad is None for p in student.parameters())
