"""Mean features of source classes: from a folder of images, and of the pretrained digits source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.data.readers.digits import read_digits
from nbt.devices import pick_device
from nbt.errors import UsageError
from nbt.fit.activations import compute_features
from nbt.fit.profile_builder import profile_fit
from nbt.fit.source_means import class_means, means_of_source_data, source_class_means
from nbt.models.weights import load_pretrained_weights
from nbt.paths import cache_folder
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.digits_source import _make_source_task
from nbt.training.pretrain.scheme_sources import SourceRecipe
from nbt.training.pretrain.source_cache import read_source
from tests.source_images import BACKBONE, PER_CLASS, save_source_images, save_source_weights


def write_images(folder: Path, n: int, level: int) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        pixels = np.random.default_rng([level, i]).integers(0, level, (28, 28, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_class_means_are_the_means_of_the_classes_that_occur() -> None:
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    means, present = class_means(features, np.array([4, 1, 4, 1, 4, 1]))
    assert present.tolist() == [1, 4]
    assert means.tolist() == [features[1::2].mean(0).tolist(), features[::2].mean(0).tolist()]


def test_means_of_a_folder_use_a_sample_and_count_all_images(encoder: Task, tmp_path: Path) -> None:
    write_images(tmp_path / "dark", 6, 60)
    write_images(tmp_path / "light", 3, 255)
    all_of_them = source_class_means(encoder, tmp_path, device="cpu")
    some = source_class_means(encoder, tmp_path, per_class=2, device="cpu")
    assert all_of_them.class_names == ("dark", "light")
    assert all_of_them.counts.tolist() == some.counts.tolist() == [6, 3]
    assert all_of_them.means.shape == (2, encoder.build_model().feature_dim)
    assert all_of_them.means.dtype == np.float32
    assert not np.allclose(all_of_them.means[0], all_of_them.means[1])
    assert not np.allclose(all_of_them.means, some.means)


def test_test_images_of_a_source_are_ignored(encoder: Task, tmp_path: Path) -> None:
    for role, n in (("train", 3), ("test", 4)):
        for name in ("a", "b"):
            write_images(tmp_path / role / name, n, 100)
    assert source_class_means(encoder, tmp_path, device="cpu").counts.tolist() == [3, 3]


def test_source_images_of_a_task_give_the_means_and_the_similarity(tmp_path: Path) -> None:
    weights, images = save_source_weights(tmp_path / "weights.safetensors"), save_source_images(tmp_path / "images")
    task = load_task("digits", backbone=BACKBONE, weights=weights, shots=24, source_data=images)
    device = pick_device("cpu")
    found, of_folder = means_of_source_data(task, device), source_class_means(task, images, device="cpu")
    assert found is not None
    np.testing.assert_allclose(found.means, of_folder.means, atol=1e-5)
    assert found.counts.tolist() == of_folder.counts.tolist() == [PER_CLASS] * 5
    with_images, without = (profile_fit(t, samples=60, cache=False) for t in (task, replace(task, source_data=None)))
    assert with_images.scalars["emd_similarity"] > 0
    assert "emd_similarity" not in without.scalars
    assert means_of_source_data(replace(task, source_data=None), device) is None


def test_a_folder_without_classes_is_refused(encoder: Task, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no images"):
        source_class_means(encoder, tmp_path)


def test_the_pretrained_digits_source_has_head_and_means(pretrained: Task) -> None:
    means, head = pretrained.source_means, pretrained.source_head
    assert means is not None
    assert head is not None
    assert means.class_names == ("0", "1", "2", "3", "4")
    assert {name: tuple(tensor.shape) for name, tensor in head.items()} == {
        "head.weight": (5, means.means.shape[1]),
        "head.bias": (5,),
    }
    recipe = SourceRecipe(backbone=pretrained.backbone.text, image_size=pretrained.image_size)
    blank = load_pretrained_weights(pretrained.backbone, "none", image_size=28, seed=0)
    source = _make_source_task(read_digits(source=True), recipe, pretrained.backbone, blank)
    index = source.split.train
    features = compute_features(pretrained.build_model(), source, index, pick_device("cpu"))
    expected, _ = class_means(features, source.labels[index])
    assert means.counts.tolist() == np.bincount(source.labels[index]).tolist()
    np.testing.assert_allclose(means.means, expected, rtol=1e-3, atol=1e-4)


def test_a_cached_source_without_means_is_trained_again(pretrained: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    recipe = SourceRecipe(backbone=pretrained.backbone.text, image_size=pretrained.image_size)
    path = cache_folder("sources") / f"{recipe.hash()}.safetensors"
    state = load_file(path)
    assert read_source(path, dict(pretrained.w0)) is not None
    other = path.with_name("other.safetensors")
    save_file({name: tensor for name, tensor in state.items() if name != "source.means"}, other)
    assert read_source(other, dict(pretrained.w0)) is None
