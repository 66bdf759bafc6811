"""Names of backbones: known names, parsing, and errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.models import backbone_spec
from nbt.models.backbone_spec import BackboneSpec, backbone_names, parse_backbone


def test_all_classifiers_of_torchvision_are_known() -> None:
    from torchvision import models

    assert backbone_names() == tuple(sorted(["conv3", "conv4", *models.list_models(module=models)]))


def test_names_are_parsed_without_importing_torch() -> None:
    code = (
        "import sys\n"
        "from nbt.models.backbone_spec import backbone_names, parse_backbone\n"
        "assert parse_backbone('mobilenet_v2(width_mult=0.35)').name in backbone_names()\n"
        "print([name for name in ('torch', 'torchvision', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "name", "arguments", "canonical"),
    [
        ("resnet18", "resnet18", {}, "resnet18"),
        (" resnet18 ( ) ", "resnet18", {}, "resnet18"),
        ("mobilenet_v2(width_mult=.35)", "mobilenet_v2", {"width_mult": 0.35}, "mobilenet_v2(width_mult=0.35)"),
        (
            "resnet50(zero_init_residual = True, replace_stride_with_dilation=[False, False, True],)",
            "resnet50",
            {"replace_stride_with_dilation": (False, False, True), "zero_init_residual": True},
            "resnet50(replace_stride_with_dilation=(False, False, True), zero_init_residual=True)",
        ),
        ("conv3(width=-1)", "conv3", {"width": -1}, "conv3(width=-1)"),
    ],
)
def test_backbones_are_parsed(text: str, name: str, arguments: dict[str, Any], canonical: str) -> None:
    spec = parse_backbone(text)
    assert (spec.name, spec.arguments, spec.text) == (name, arguments, canonical)


def test_specs_are_hashable_and_independent_of_argument_order() -> None:
    spec = parse_backbone("mobilenet_v2(width_mult=0.5, dropout=0.1)")
    other = parse_backbone("mobilenet_v2(dropout=0.1, width_mult=0.5)")
    assert spec == other == pickle.loads(pickle.dumps(spec))
    assert {spec: "value"}[other] == "value"
    assert spec != parse_backbone("mobilenet_v2(width_mult=0.5)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write a name"),
        ("resnet18(", "write a name"),
        ("resnet18(0.5)", "write a name, or a name with keyword arguments such as"),
        ("resnet18(**{})", "write a name"),
        ("resnet18(a=1)(b=2)", "write a name"),
        ("resnet18(a=1#)", "write a name"),
        ("mobilnet_v2", "unknown backbone 'mobilnet_v2'; did you mean mobilenet_v2"),
        ("__import__('os')", "unknown backbone '__import__'"),
        ("resnet18(a=open('x'))", "a is not a number, a text in quotes"),
        ("resnet18(a={'b': 1})", "a is not a number"),
        ("resnet18(a=1e999)", "a is not a number"),
        (f"resnet18(a=0x{'f' * 5000})", "a is not a number"),
        ("resnet18(a=1, a=2)", "a is given twice"),
        ("resnet18(num_classes=5)", "num_classes cannot be given here; the dataset decides it"),
        ("resnet18(pretrained=True)", "pretrained cannot be given here; give --weights"),
        ("resnet18(weights='DEFAULT')", "weights cannot be given here; give --weights"),
    ],
)
def test_invalid_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_backbone(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("installed", [True, False])
def test_a_missing_timm_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    timm_spec = backbone_spec.importlib.util.find_spec("json") if installed else None
    monkeypatch.setattr(backbone_spec.importlib.util, "find_spec", lambda name: timm_spec if name == "timm" else None)
    if installed:
        spec = parse_backbone("timm:resnet18.a1_in1k(drop_path_rate=0.1)")
        assert (spec.name, spec.arguments) == ("timm:resnet18.a1_in1k", {"drop_path_rate": 0.1})
    else:
        with pytest.raises(UsageError, match=r"'timm:resnet18' needs timm: pip install 'nbt-transfer\[timm\]'"):
            parse_backbone("timm:resnet18")


_words = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True).filter(
    lambda word: word not in backbone_spec._RESERVED_ARGUMENTS and not __import__("keyword").iskeyword(word)
)
_atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18),
    st.text(max_size=20),
)
_values = st.recursive(_atoms, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


@given(name=st.sampled_from(backbone_names()), arguments=st.dictionaries(_words, _values, max_size=4))
def test_the_text_of_a_spec_is_parsed_back(name: str, arguments: dict[str, Any]) -> None:
    spec = BackboneSpec(name, tuple(sorted(arguments.items())))
    again = parse_backbone(spec.text)
    assert again == spec
    assert again.text == spec.text


@given(
    text=st.one_of(
        st.text(max_size=60),
        st.text(alphabet="resnt18conv3(=,)[]{}'\"*:.#\\\n _-+eEjJfxX0", max_size=40),
        st.text(max_size=40).map(lambda inside: f"resnet18({inside})"),
        st.text(max_size=40).map(lambda value: f"conv3(width={value})"),
    )
)
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        spec = parse_backbone(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_backbone(spec.text) == spec
