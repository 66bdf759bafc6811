from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.task.backbone_names import BackboneSpec, backbone_names, parse_backbone

values = st.one_of(st.booleans(), st.integers(-9, 9), st.floats(-1e6, 1e6), st.text("ab c'\"\\", max_size=5), st.none())
arguments = st.dictionaries(st.sampled_from(["width_mult", "dropout", "image_size", "a"]), values, max_size=3)


def test_names_are_torchvisions_own_and_ours() -> None:
    import torchvision

    theirs = set(torchvision.models.list_models(module=torchvision.models))
    assert set(backbone_names()) == theirs | {"conv3", "conv4"}


def test_listing_and_parsing_import_neither_torch_nor_torchvision() -> None:
    code = (
        "import sys; from nbt.task.backbone_names import parse_backbone; parse_backbone('resnet18');"
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.sampled_from(["mobilenet_v2", "conv3", "vit_b_16"]), arguments)
def test_the_canonical_text_reads_back(name: str, kwargs: dict[str, object]) -> None:
    spec = BackboneSpec(name, tuple(sorted(kwargs.items())))
    assert parse_backbone(spec.text) == spec


def test_the_order_of_arguments_and_spaces_do_not_matter() -> None:
    one = parse_backbone("mobilenet_v2( width_mult = 0.35, dropout=0.1 )")
    assert one == parse_backbone("mobilenet_v2(dropout=0.1,width_mult=0.35)")
    assert one.text == "mobilenet_v2(dropout=0.1, width_mult=0.35)"
    assert one.arguments == {"width_mult": 0.35, "dropout": 0.1}


@given(st.text(max_size=40))
def test_any_text_is_a_backbone_or_a_usage_error(text: str) -> None:
    try:
        spec = parse_backbone(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert spec.name in backbone_names()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mobilenet_v22", ["unknown backbone", "did you mean", "mobilenet_v2"]),
        ("resnet18(weights='DEFAULT')", ["weights", "--weights"]),
        ("resnet18(num_classes=3)", ["num_classes", "dataset"]),
        ("resnet18(0.5)", ["keyword"]),
        ("resnet18(**x)", ["one by one"]),
        ("resnet18(width=__import__('os'))", ["width", "not a plain"]),
        ("resnet18(width=1e999)", ["width", "not a plain"]),
        ("resnet18(", ["write a name"]),
        ("", ["write a name"]),
    ],
)
def test_errors_name_the_problem_and_the_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_backbone(text)
    for word in words:
        assert word in str(caught.value)
