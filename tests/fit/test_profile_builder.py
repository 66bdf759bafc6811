"""profile_fit on real digits: deterministic, cached and complete for all kinds of backbones."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

import nbt
import nbt.fit
from nbt import devices
from nbt.fit import profile_builder as module
from nbt.fit.fit_profile import LAYER_COLUMNS, OPTIONAL_MEASURES, FitProfile
from nbt.fit.profile_builder import profile_fit
from nbt.models import backbone as backbones
from nbt.models.units import decompose
from nbt.models.weights import SourceClassMeans
from nbt.paths import cache_folder
from nbt.task.load import load_task
from nbt.task.task import Task

FACTS = {
    *("classes", "train_images", "images_per_class", "smallest_class", "imbalance", "image_size", "samples"),
    *("parameters", "units", "feature_dim"),
}
OUTPUT = {
    *("logme", "h_score_regularized", "ridge_accuracy", "knn_accuracy", "gbc"),
    *("ridge_accuracy_random", "knn_accuracy_random", "logme_random", "mean_gain", "knee_depth", "dead_channels"),
    "advantage",
}
SOURCE = {"emd_similarity", "similarity"}
SHIFT = {"mean_shift", "variance_shift"}


def profile(task: Task, **options: object) -> FitProfile:
    return profile_fit(task, device="cpu", **{"cache": False, **options})  # type: ignore[arg-type]


def is_same_profile(first: FitProfile, second: FitProfile) -> bool:
    first_values, second_values = ({**p.to_dict(), "facts": {**p.facts, "seconds": 0}} for p in (first, second))
    return first_values == second_values


@pytest.fixture(scope="module")
def pretrained_profile(pretrained: Task) -> FitProfile:
    return profile(pretrained)


def test_profile_has_all_measures_or_reasons(pretrained_profile: FitProfile, normed: Task) -> None:
    assert set(pretrained_profile.scalars) == FACTS | OUTPUT | SOURCE
    assert set(pretrained_profile.left_out) == SHIFT
    assert "no BatchNorm" in pretrained_profile.left_out["mean_shift"]
    other = profile(normed, samples=60)
    assert set(other.scalars) == FACTS | OUTPUT | SHIFT
    assert set(other.left_out) == SOURCE
    assert "--source-data" in other.left_out["emd_similarity"]
    assert all(math.isfinite(value) for value in (*pretrained_profile.scalars.values(), *other.scalars.values()))


def test_optional_measures_are_computed_on_request(
    pretrained: Task, pretrained_profile: FitProfile, normed: Task
) -> None:
    complete = profile(pretrained, all_measures=True)
    assert set(complete.scalars) == FACTS | OUTPUT | SOURCE | set(OPTIONAL_MEASURES)
    assert list(complete.scalars)[:3] == ["ridge_accuracy", "knn_accuracy", "logme"]
    assert tuple(complete.scalars)[-5:] == OPTIONAL_MEASURES
    assert is_same_profile(complete.without_optional_measures(), pretrained_profile)
    assert list(complete.without_optional_measures().scalars) == list(pretrained_profile.scalars)
    without_head = profile(normed, samples=60, all_measures=True)
    assert set(without_head.left_out) == SOURCE | {"leep", "nce"}
    assert set(without_head.without_optional_measures().left_out) == SOURCE


def test_layers_have_one_row_per_unit_and_agree_with_the_output(pretrained_profile: FitProfile) -> None:
    layers = pretrained_profile.layers
    assert tuple(layers.columns) == LAYER_COLUMNS
    assert list(layers["unit"]) == ["block1", "block2", "block3"]
    np.testing.assert_allclose(layers["depth"], [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(layers["gain"], layers["ridge_accuracy"] - layers["ridge_accuracy_random"])
    assert layers["cka_next"].iloc[:2].between(0, 1).all()
    assert math.isnan(layers["cka_next"].iloc[2])
    assert layers["mean_shift"].isna().all()
    last = layers.iloc[-1]
    assert pretrained_profile.scalars["ridge_accuracy"] == last["ridge_accuracy"]
    assert pretrained_profile.scalars["h_score_regularized"] == last["h_score"]
    assert pretrained_profile.scalars["logme_random"] == last["logme_random"]
    gain, random_error = last["gain"], 1 - last["ridge_accuracy_random"]
    assert pretrained_profile.scalars["advantage"] == pytest.approx(gain / random_error)
    assert pretrained_profile.scalars["mean_gain"] == pytest.approx(layers["gain"].mean())


def test_relative_gradients_are_positive_and_depend_on_the_seed_only(
    pretrained: Task, pretrained_profile: FitProfile
) -> None:
    values = pretrained_profile.layers["relative_gradient"]
    assert (values > 0).all()
    assert profile(pretrained).layers["relative_gradient"].equals(values), "deterministic"
    assert not profile(pretrained, seed=1).layers["relative_gradient"].equals(values)


def test_output_measures_are_computed_from_the_features(pretrained: Task) -> None:
    from nbt.devices import pick_device
    from nbt.fit.activations import compute_features
    from nbt.fit.sampling import draw_sample

    index = draw_sample(pretrained.labels, pretrained.split.train)
    features = compute_features(pretrained.build_model(), pretrained, index, pick_device("cpu"))
    labels = pretrained.labels[index]
    scalars = profile(pretrained, all_measures=True).scalars
    for name in ("logme", "h_score", "knn_accuracy", "gbc", "transrate"):
        assert scalars[name] == pytest.approx(getattr(nbt.fit, name)(features, labels), rel=1e-4), name
    assert scalars["ridge_accuracy"] == nbt.fit.ridge_probe_accuracy(features, labels)
    assert scalars["samples"] == len(index) == len(pretrained.split.train)


def test_weights_trained_on_the_target_have_a_gain(encoder: Task) -> None:
    # Weights pretrained on digits 0-4 do not suffice: at some units random filters separate digits equally well.
    settings = nbt.TransferSettings(optimizer="adamw", head_lr=3e-3, body_lr=3e-3, epochs=40, augmentation="none")
    trial = nbt.fine_tune(encoder.train_on_all(), settings)
    while True:
        try:
            next(trial)
        except StopIteration as end:
            learned = {name: tensor.clone() for name, tensor in end.value.model.unit_state_dict().items()}
            break
    trained = profile(dataclasses.replace(encoder, w0=learned))
    untrained = profile(encoder)
    assert trained.scalars["ridge_accuracy"] > untrained.scalars["ridge_accuracy"]
    assert trained.scalars["logme"] > untrained.scalars["logme"] + 0.1
    assert trained.layers["gain"].iloc[-1] > 0.05
    assert trained.scalars["knee_depth"] > untrained.scalars["knee_depth"] == 0.0
    assert all("random" in untrained.left_out[name] for name in SOURCE | SHIFT)


def test_only_training_images_are_used(normed: Task) -> None:
    pixels = normed.images.array.copy()
    hidden = np.setdiff1d(np.arange(len(pixels)), normed.split.train)
    pixels[hidden] = 255 - pixels[hidden]
    other = dataclasses.replace(normed, images=type(normed.images)(pixels))
    assert is_same_profile(profile(normed, samples=40), profile(other, samples=40))


def test_the_same_arguments_give_the_same_profile(normed: Task) -> None:
    first = profile(normed, samples=40)
    assert is_same_profile(first, profile(normed, samples=40))
    assert not is_same_profile(first, profile(normed, samples=40, seed=1))


def test_source_means_may_be_given(encoder: Task) -> None:
    dim = encoder.build_model().feature_dim
    means = SourceClassMeans(np.eye(3, dim, dtype=np.float32), np.array([1, 2, 3]))
    scalars = profile(encoder, source_means=means).scalars
    assert 0 < scalars["similarity"] < scalars["emd_similarity"] <= 1
    with pytest.raises(ValueError, match=f"source_means: 5 features, but .* has {dim}"):
        profile(encoder, source_means=SourceClassMeans(means.means[:, :5], means.counts))


def test_too_small_a_sample_is_refused(encoder: Task) -> None:
    with pytest.raises(ValueError, match="give 5 or more"):
        profile(encoder, samples=4)


def test_one_image_per_class_gives_a_profile(encoder: Task) -> None:
    result = profile(encoder, samples=5)
    assert len(result.layers) == 3
    assert set(result.scalars) | set(result.left_out) >= FACTS | OUTPUT | SOURCE | SHIFT


def test_a_measure_that_fails_is_left_out_with_its_reason(pretrained: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise ArithmeticError("the linear program was not solved")

    monkeypatch.setattr(module, "emd_similarity", fail)
    result = profile(pretrained, samples=60)
    assert "not solved" in result.left_out["emd_similarity"]
    assert "similarity" in result.left_out
    assert {"logme", "gbc", "knn_accuracy"} <= set(result.scalars)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path))
    return cache_folder("fit")


def forbid_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    def collect_activations(*_: object, **__: object) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(module, "collect_activations", collect_activations)


def test_a_cached_profile_is_read(encoder: Task, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile(encoder, samples=30, cache=True)
    forbid_forward(monkeypatch)
    moved = dataclasses.replace(encoder, dataset="elsewhere")
    cached = profile(moved, samples=30, cache=True)
    assert cached.facts == {**first.facts, "dataset": "elsewhere"}
    assert dict(cached.scalars) == dict(first.scalars)
    pd.testing.assert_frame_equal(cached.layers, first.layers)
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_a_cached_profile_with_all_measures_contains_the_default_one(
    pretrained: Task, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, object] = {"samples": 30, "cache": True}
    complete = profile(pretrained, all_measures=True, **options)
    assert is_same_profile(complete.without_optional_measures(), profile(pretrained, samples=30))
    forbid_forward(monkeypatch)
    assert is_same_profile(profile(pretrained, **options), complete.without_optional_measures())
    assert is_same_profile(profile(pretrained, all_measures=True, **options), complete)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "change", ["samples", "seed", "weights", "split", "means", "device", "all measures", "no cache"]
)
def test_other_arguments_are_measured_again(
    encoder: Task, cache: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    options: dict[str, object] = {"samples": 30, "cache": True}
    profile(encoder, **options)
    forbid_forward(monkeypatch)
    task = encoder
    if change == "samples":
        options["samples"] = 31
    elif change == "seed":
        options["seed"] = 1
    elif change == "weights":
        task = dataclasses.replace(task, w0={name: tensor + 1 for name, tensor in task.w0.items()})
    elif change == "split":
        task = task.with_split_seed(5)
    elif change == "means":
        dim = task.build_model().feature_dim
        options["source_means"] = SourceClassMeans(np.ones((2, dim), dtype=np.float32), np.array([1, 1]))
    elif change == "device":
        monkeypatch.setattr(module, "pick_device", lambda name: torch.device("meta"))
    elif change == "all measures":
        options["all_measures"] = True
    else:
        options["cache"] = False
    with pytest.raises(AssertionError, match="a forward pass"):
        profile(task, **options)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 1, "facts": {}}', "\x00\xff"])
def test_a_damaged_cache_file_is_measured_again(encoder: Task, cache: Path, damage: str) -> None:
    first = profile(encoder, samples=10, cache=True)
    (path,) = cache.iterdir()
    path.write_bytes(damage.encode("latin-1"))
    assert is_same_profile(profile(encoder, samples=10, cache=True), first)
    assert is_same_profile(FitProfile.from_json(path.read_text()), first)


def test_batch_norm_is_recalibrated_with_fewer_large_images(normed: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(module, "estimate_statistics", lambda model, batches: sizes.extend(map(len, batches)))
    for usual in (224, 16, 1):
        monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", usual)
        profile(normed, samples=60)
    assert sizes == [60, 32, 2]


def test_progress_reaches_its_total(encoder: Task) -> None:
    steps: list[tuple[str, int, int]] = []
    profile(encoder, samples=40, progress=lambda *step: steps.append(step))
    assert [done for _, done, _ in steps] == list(range(1, steps[0][2] + 1))
    assert len({total for _, _, total in steps}) == 1


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5", "densenet121"])
def test_profile_of_all_kinds_of_maps(backbone: str) -> None:
    check_complete(load_task("digits", backbone=backbone, weights="none", shots=8, image_size=64))


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_profile_of_tokens(normed: Task, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Builds the classes directly, because the named builders have no arguments for small models."""

    def build(spec: object, n_classes: int, *, image_size: int, seed: int) -> backbones.Backbone:
        torch.manual_seed(seed)
        if kind == "vit":
            parts = decompose(VisionTransformer(image_size, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32))
            return backbones.Backbone(parts, 16, n_classes).eval()
        parts = decompose(SwinTransformer([2, 2], 12, [1, 1], [1, 2], [2, 2]))
        return backbones.Backbone(parts, 24, n_classes).eval()

    monkeypatch.setattr(backbones, "build_backbone", build)
    w0 = {name: tensor.clone() for name, tensor in build(None, 5, image_size=32, seed=7).unit_state_dict().items()}
    result = check_complete(dataclasses.replace(normed, w0=w0))
    assert set(result.layers["channels"]) <= ({16.0} if kind == "vit" else {12.0, 24.0})


def check_complete(task: Task) -> FitProfile:
    result = profile(task, samples=20)
    assert result.layers[["ridge_accuracy", "ridge_accuracy_random", "logme", "h_score", "gain"]].notna().all(axis=None)
    assert {*FACTS, "ridge_accuracy", "knn_accuracy", "logme"} <= set(result.scalars)
    return result


def test_profile_fit_is_public() -> None:
    assert inspect.unwrap(nbt.profile_fit) is profile_fit
    assert nbt.fit.profile_fit is profile_fit
    assert callable(nbt.fit.logme)
    assert all(callable(getattr(nbt.fit, name)) for name in nbt.fit.__all__ if not name.isupper())
