"""Source models of the zapping schemes: zaps, episodes, cache and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbt import devices
from nbt.data.resolve import resolve
from nbt.errors import NbtError, UsageError
from nbt.models.backbone_spec import parse_backbone
from nbt.models.weights import load_pretrained_weights
from nbt.paths import cache_folder
from nbt.settings.pretrain import PretrainSettings
from nbt.training.digits_source import pretrained_source
from nbt.training.pretrain import scheme_sources as scheme_sources_module
from nbt.training.pretrain import source_trainer as trainer_module
from nbt.training.pretrain.scheme_sources import SourceRecipe, pretrain
from nbt.training.pretrain.source_cache import export_weights, read_source
from nbt.training.pretrain.source_images import SourceImages, load_source_images
from nbt.training.pretrain.source_trainer import SourceTrainer

SPEC = parse_backbone("conv3(width=4)")
IID = PretrainSettings(epochs=4, batch_size=16, zap_period=1)
ASB = PretrainSettings(scheme="asb", episodes=4, inner_steps=3, remembered=6, zap_period=1, inner_lr=0.01)
META = PretrainSettings(scheme="meta-asb", episodes=4, inner_steps=3, remembered=6, zap_period=2, inner_lr=0.1)


@pytest.fixture(scope="module")
def images() -> SourceImages:
    return load_source_images(resolve("digits"), 28, shots=8)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path))
    return tmp_path / "sources"


def make_trainer(images: SourceImages, settings: PretrainSettings, seed: int = 0) -> SourceTrainer:
    return SourceTrainer(
        images, SPEC, load_pretrained_weights(SPEC, "none", image_size=28, seed=seed), settings, seed, device="cpu"
    )


def state_of(training: SourceTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_source_has_the_digits_0_to_4_and_shots_apply_to_every_class(images: SourceImages) -> None:
    assert images.class_names == ("0", "1", "2", "3", "4")
    assert np.bincount(images.labels).tolist() == [8] * 5
    everything = load_source_images(resolve("digits"), 28)
    chosen = load_source_images(resolve("digits"), 28, classes=[3, 1])
    assert chosen.class_names == ("3", "1")
    assert len(chosen) == int((everything.labels == 3).sum() + (everything.labels == 1).sum())
    np.testing.assert_array_equal(chosen.pixels[chosen.labels == 0], everything.pixels[everything.labels == 3])
    assert len({images.digest, everything.digest, chosen.digest}) == 3


@pytest.mark.parametrize(("period", "expected"), [(1, [2, 3, 4, 5, 6, 7]), (2, [3, 5, 7]), (3, [4, 7]), (0, [])])
def test_the_head_is_zapped_at_the_start_of_the_expected_epochs(
    images: SourceImages, period: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_trainer(images, PretrainSettings(epochs=7, batch_size=20, zap_period=period))
    zapped: list[tuple[int, Any]] = []
    steps: list[int] = []
    monkeypatch.setattr(
        trainer_module, "zap", lambda head, classes, *rest: zapped.append((training.done + 1, len(steps)))
    )
    training.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    training.run()
    assert [epoch for epoch, _ in zapped] == expected
    assert [done for _, done in zapped] == [2 * (epoch - 1) for epoch in expected]


def test_every_zap_of_a_fraction_draws_new_classes(images: SourceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    zapped: list[Any] = []
    monkeypatch.setattr(trainer_module, "zap", lambda head, classes, *rest: zapped.append(tuple(classes)))
    make_trainer(images, PretrainSettings(epochs=8, batch_size=64, zap_period=1, zap_fraction=0.4)).run()
    assert [len(classes) for classes in zapped] == [2] * 7
    assert len(set(zapped)) > 1


@pytest.mark.parametrize("settings", [ASB, META], ids=["asb", "meta-asb"])
def test_an_episode_zaps_the_row_of_its_class(
    images: SourceImages, settings: PretrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    zapped: list[tuple[int, list[int]]] = []
    drawn: list[int] = []
    real = trainer_module.draw_episode

    def draw(*arguments: Any) -> Any:
        episode = real(*arguments)
        drawn.append(episode.label)
        return episode

    training = make_trainer(images, settings)
    monkeypatch.setattr(trainer_module, "draw_episode", draw)
    monkeypatch.setattr(trainer_module, "zap", lambda head, classes, *rest: zapped.append((training.done + 1, classes)))
    training.run()
    due = [number for number in range(1, 5) if number % settings.zap_period == 0]
    assert zapped == [(number, [drawn[number - 1]]) for number in due]


def test_inner_steps_of_asb_change_the_weights_and_not_the_state_of_adam(
    images: SourceImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_trainer(images, ASB)
    training.run_round()
    moments = [{k: v.clone() for k, v in training.optimizer.state[p].items()} for p in training.model.parameters()]
    before = state_of(training)
    seen: dict[str, Any] = {}

    def stop(loss: torch.Tensor) -> None:
        seen["state"] = state_of(training)
        seen["moments"] = [dict(training.optimizer.state[p]) for p in training.model.parameters()]

    monkeypatch.setattr(training, "_step", stop)
    training.run_round()
    assert all(torch.equal(a[k], b[k]) for a, b in zip(moments, seen["moments"], strict=True) for k in a)
    assert all(float(m["step"]) == 1.0 for m in seen["moments"])
    changed = [name for name in before if not torch.equal(before[name], seen["state"][name])]
    assert len(changed) >= len(before) - 3  # InstanceNorm removes the effect of the convolutions' biases
    assert same(seen["state"], state_of(training))


def test_the_copy_of_meta_asb_is_discarded(images: SourceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_trainer(images, META)
    before = state_of(training)
    gradients: dict[str, torch.Tensor] = {}

    def stop(loss: torch.Tensor) -> None:
        loss.backward()
        gradients.update({name: p.grad for name, p in training.model.named_parameters() if p.grad is not None})

    monkeypatch.setattr(training, "_step", stop)
    training.run_round()
    assert same(before, state_of(training))
    assert gradients.keys() == dict(training.model.named_parameters()).keys()


@pytest.mark.parametrize("settings", [IID, ASB, META], ids=["iid", "asb", "meta-asb"])
def test_a_resumed_training_equals_an_uninterrupted_one(
    images: SourceImages, settings: PretrainSettings, tmp_path: Path
) -> None:
    whole = make_trainer(images, settings)
    whole.run()
    killed = make_trainer(images, settings)
    killed.run_round()
    killed.run_round()
    killed.save(tmp_path / "c")
    resumed = make_trainer(images, settings)
    reported: list[tuple[int, int]] = []
    resumed.run(checkpoint=tmp_path / "c", progress=lambda *values: reported.append(values))
    assert same(state_of(whole), state_of(resumed))
    assert (reported[0], reported[-1], whole.loss) == ((2, 4), (4, 4), resumed.loss)
    assert not same(state_of(whole), state_of(make_trainer(images, settings, seed=1)))


def test_a_checkpoint_of_another_training_is_not_used(images: SourceImages, tmp_path: Path) -> None:
    other = make_trainer(images, PretrainSettings(epochs=4, batch_size=16))
    other.run_round()
    other.save(tmp_path / "c")
    training = make_trainer(images, IID)
    training.run(checkpoint=tmp_path / "c")
    fresh = make_trainer(images, IID)
    fresh.run()
    assert same(state_of(training), state_of(fresh))


def test_the_state_of_the_global_generator_is_restored(images: SourceImages) -> None:
    state = torch.get_rng_state()
    make_trainer(images, IID).run_round()
    make_trainer(images, META).run_round()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_loss_decreases(images: SourceImages) -> None:
    training = make_trainer(images, PretrainSettings(epochs=12, batch_size=8, lr=3e-3))
    training.run_round()
    first = training.loss
    training.run()
    assert training.loss < 0.5 * first
    accuracy, means, counts = training.evaluate()
    assert accuracy > 0.9
    features = training.model.eval().features(training.load(torch.arange(40)))
    torch.testing.assert_close(means[2], features[torch.from_numpy(images.labels) == 2].mean(dim=0).detach())
    assert counts.tolist() == [8] * 5


def test_large_images_are_evaluated_in_smaller_batches(images: SourceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    training, sizes = make_trainer(images, IID), []
    expected = training.evaluate()
    training.model.units[0].register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 7)  # so that batches of images of 28 px are 16 times smaller
    result = training.evaluate()
    assert sizes == [16, 16, 8]
    assert result[0] == expected[0]
    torch.testing.assert_close(result[1], expected[1])


def test_divergence_is_an_error_with_a_remedy(images: SourceImages) -> None:
    with pytest.raises(NbtError, match=r"diverged in episode \d.*lower its learning rates"):
        make_trainer(images, PretrainSettings(scheme="asb", episodes=40, inner_lr=1e30, remembered=4)).run()


def test_a_source_is_trained_once_and_cached_with_its_head_and_means(images: SourceImages, empty_cache: Path) -> None:
    first = pretrain(images, SPEC, ASB)
    assert first.seconds > 0
    assert [path.suffix for path in empty_cache.iterdir()] == [".safetensors"]
    second = pretrain(images, SPEC, ASB)
    assert second.seconds == 0
    assert same(first.state, second.state)
    assert (first.loss, first.accuracy) == (second.loss, second.accuracy)
    assert second.weights.source_head is not None and second.weights.source_means is not None
    assert second.weights.source_means.class_names == images.class_names
    other = pretrain(images, SPEC, ASB, seed=1)
    assert other.recipe.hash() != first.recipe.hash()
    assert len(list(empty_cache.iterdir())) == 2


def test_an_interrupted_training_leaves_a_checkpoint_from_which_the_same_call_resumes(
    images: SourceImages, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(images, SPEC, IID)
    whole.recipe.path.unlink()
    real = SourceTrainer.run_round
    rounds: list[int] = []

    def run_round(self: SourceTrainer) -> None:
        if len(rounds) == 2:
            raise KeyboardInterrupt
        real(self)
        rounds.append(self.done)

    monkeypatch.setattr(SourceTrainer, "run_round", run_round)
    with pytest.raises(KeyboardInterrupt):
        pretrain(images, SPEC, IID, checkpoint_seconds=0.0)
    assert [path.suffix for path in empty_cache.iterdir()] == [".checkpoint"]
    monkeypatch.setattr(SourceTrainer, "run_round", lambda self: (rounds.append(self.done + 1), real(self))[0])
    resumed = pretrain(images, SPEC, IID)
    assert rounds == [1, 2, 3, 4]
    assert same(whole.state, resumed.state)
    assert [path.suffix for path in empty_cache.iterdir()] == [".safetensors"]


def test_an_exported_file_can_be_loaded_as_weights(images: SourceImages, empty_cache: Path, tmp_path: Path) -> None:
    source = pretrain(images, SPEC, ASB)
    export_weights(tmp_path / "w.safetensors", source.state, {"recipe": source.recipe.to_dict()})
    loaded = load_pretrained_weights(SPEC, tmp_path / "w.safetensors", image_size=28)
    assert same(dict(loaded.w0), dict(source.weights.w0))
    assert loaded.source_head is not None


def test_different_recipes_have_different_hashes() -> None:
    recipes = [
        SourceRecipe(backbone="conv3", image_size=28),
        SourceRecipe(backbone="conv3", image_size=28, settings=PretrainSettings()),
        SourceRecipe(backbone="conv3", image_size=28, settings=PretrainSettings(zap_period=1)),
        SourceRecipe(backbone="conv3", image_size=28, settings=PretrainSettings(zap_period=1, zap_scale="as_released")),
        SourceRecipe(backbone="conv3", image_size=28, settings=PretrainSettings(), images="others"),
        SourceRecipe(backbone="conv4", image_size=28, settings=PretrainSettings()),
        SourceRecipe(backbone="conv3", image_size=28, settings=PretrainSettings(), seed=1),
    ]
    assert len({recipe.hash() for recipe in recipes}) == len(recipes)


def test_a_search_trains_one_source_per_scheme_and_period(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, images: SourceImages
) -> None:
    monkeypatch.setattr(scheme_sources_module, "load_source_images", lambda *arguments, **options: images)
    requested: list[PretrainSettings] = []

    def small_settings(scheme: str, backbone: str, *, digits: bool, zap_period: int) -> PretrainSettings:
        assert digits
        changes = {"epochs": 3} if scheme == "iid" else {"episodes": 2, "remembered": 4}
        requested.append(PretrainSettings(scheme=scheme, zap_period=zap_period, **changes))
        return requested[-1]

    monkeypatch.setattr(scheme_sources_module, "default_pretrain_settings", small_settings)
    values = [("iid", 1), ("iid", 2), ("asb", 0), ("asb", 1), ("meta-asb", 1)]
    sources = [pretrained_source(SPEC, "digits", 28, scheme=scheme, zap_period=zap) for scheme, zap in values * 2]
    assert len(list(empty_cache.iterdir())) == 5
    for first, again in zip(sources[:5], sources[5:], strict=True):
        assert first is not None and again is not None
        assert same(dict(first.w0), dict(again.w0))
    assert pretrained_source(SPEC, "cub", 28, scheme="asb") is None
    assert pretrained_source(parse_backbone("resnet18"), "digits", 28, scheme="asb") is None


def test_an_invalid_period_is_refused_before_training(empty_cache: Path) -> None:
    with pytest.raises(UsageError, match="longer than the training"):
        pretrained_source(SPEC, "digits", 28, zap_period=15)
    assert not empty_cache.exists() or not list(empty_cache.iterdir())


@pytest.mark.parametrize("scheme", ["asb", "meta-asb"])
def test_single_images_have_no_batch_statistics(images: SourceImages, scheme: str) -> None:
    spec = parse_backbone("mobilenet_v2(width_mult=0.1)")
    random_weights = load_pretrained_weights(spec, "none", image_size=32)
    big = load_source_images(resolve("digits"), 32, shots=3)
    with pytest.raises(UsageError, match="normalises over the batch"):
        SourceTrainer(big, spec, random_weights, PretrainSettings(scheme=scheme))
    training = SourceTrainer(big, spec, random_weights, PretrainSettings(epochs=1, batch_size=8), device="cpu")
    training.run()
    assert training.done == 1


def test_a_source_with_one_class_is_refused(images: SourceImages) -> None:
    one_class = SourceImages("one", ("a",), images.pixels[:3], np.zeros(3, dtype=np.int64), "1")
    with pytest.raises(UsageError, match="two or more classes"):
        make_trainer(one_class, IID)


def test_a_source_with_a_damaged_cache_file_is_trained_again(images: SourceImages, empty_cache: Path) -> None:
    path = pretrain(images, SPEC, ASB).recipe.path
    path.write_bytes(path.read_bytes()[:1000])
    assert read_source(path, {}) is None
    assert pretrain(images, SPEC, ASB).seconds > 0


def test_sources_are_cached_in_their_folder() -> None:
    assert SourceRecipe(backbone="conv3", image_size=28).path.parent == cache_folder("sources")
