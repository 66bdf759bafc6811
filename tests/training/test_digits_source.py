"""The default source models of the embedded datasets."""

from __future__ import annotations

import torch

from nbt.models.backbone_spec import parse_backbone
from nbt.training.digits_source import pretrained_source
from nbt.training.pretrain.scheme_sources import SourceRecipe

SPEC = parse_backbone("conv3(width=2)")


def test_the_source_of_numbers_is_trained_on_other_numbers_and_cached() -> None:
    progress: list[str] = []
    weights = pretrained_source(SPEC, "numbers", 28, progress=lambda what, done, total: progress.append(what))
    assert weights is not None and weights.source_head is not None and weights.source_means is not None
    assert set(progress) == {"pretraining on numbers 00-44"}
    assert weights.source_means.class_names[:2] == ("00", "01") and len(weights.source_means.counts) == 25
    assert len(weights.source_head["head.weight"]) == 25
    progress.clear()
    again = pretrained_source(SPEC, "numbers", 28, progress=lambda what, done, total: progress.append(what))
    assert again is not None and not progress
    assert all(torch.equal(tensor, again.w0[name]) for name, tensor in weights.w0.items())


def test_the_recipe_of_the_digits_source_is_that_of_version_0_1() -> None:
    """Stored studies build on these weights, which the hash of the recipe names."""
    assert SourceRecipe(backbone="conv3", image_size=28).hash() == "b6938797351bc7e6c674"
