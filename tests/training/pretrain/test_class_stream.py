"""Transfer protocols: images and their order, trained layers, and the choice of the learning rate."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbt import devices
from nbt.errors import UsageError
from nbt.settings.class_stream import DEFAULT_RATES, ClassStreamSettings
from nbt.task.task import Task
from nbt.training.pretrain import class_stream as class_stream_module
from nbt.training.pretrain.class_stream import (
    ClassDraw,
    ClassStreamTrainer,
    best_learning_rate,
    class_stream_batches,
    limit_classes,
    make_draw,
    run_class_stream,
)

SMALL = ClassStreamSettings(classes=3, train=4, test=2, draws=2, sweep_draws=1, rates=(1e-2, 1e-3))


@given(
    classes=st.integers(2, 5),
    train=st.integers(1, 6),
    test=st.integers(1, 4),
    skip=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_a_draw_has_distinct_classes_and_images(classes: int, train: int, test: int, skip: int, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(80) % 8)
    settings = ClassStreamSettings(classes=classes, train=train, test=test, skip_classes=skip)
    draw = make_draw(labels, settings, seed, "draw", 0)
    assert draw.train.shape == (classes, train) and draw.test.shape == (classes, test)
    assert len(set(draw.classes.tolist())) == classes and draw.classes.min() >= skip
    images = [*draw.train.flatten().tolist(), *draw.test.flatten().tolist()]
    assert len(set(images)) == len(images)
    for position, label in enumerate(draw.classes):
        assert (labels[draw.train[position]] == label).all() and (labels[draw.test[position]] == label).all()
    again = make_draw(labels, settings, seed, "draw", 0)
    assert (again.train == draw.train).all() and again.seed == draw.seed
    assert make_draw(labels, settings, seed, "draw", 1).seed != draw.seed


def spy_on_inputs(trainer: ClassStreamTrainer) -> list[torch.Tensor]:
    """Returns a list that receives the inputs of every training step."""
    batches: list[torch.Tensor] = []

    def record(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            batches.append(inputs[0])

    (trainer.model.head if trainer.head_only else trainer.model).register_forward_pre_hook(record)
    return batches


@pytest.mark.parametrize("layers", ["all", "head"])
def test_continual_takes_one_image_per_step_class_by_class(digits: Task, layers: str) -> None:
    settings = dataclasses.replace(SMALL, train_layers=layers)
    trainer = ClassStreamTrainer(digits, settings, device="cpu")
    trainer.load_draw(make_draw(digits.labels, settings, 0, "draw", 0))
    batches = spy_on_inputs(trainer)
    trainer.run(1e-3)
    assert [len(batch) for batch in batches] == [1] * 12
    assert torch.equal(torch.cat(batches), trainer.train)
    assert trainer.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    rows = trainer.draw.train.reshape(-1)
    assert (digits.labels[rows] == np.repeat(trainer.draw.classes, 4)).all()


@given(train=st.integers(1, 9), batch=st.integers(1, 40), epochs=st.integers(1, 3))
def test_standard_takes_shuffled_batches_and_every_image_once_per_epoch(train: int, batch: int, epochs: int) -> None:
    settings = ClassStreamSettings(protocol="standard", classes=4, train=train, batch_size=batch, epochs=epochs)
    batches = class_stream_batches(settings, 0)
    assert len(batches) == settings.steps()
    assert all(len(rows) <= batch for rows in batches)
    order = torch.cat(batches).view(epochs, -1)
    assert (order.sort(dim=1).values == torch.arange(4 * train)).all()
    if epochs > 1 and train > 3:
        assert not torch.equal(order[0], order[1])
        assert not torch.equal(order[0], torch.arange(4 * train))


def test_every_run_starts_from_the_pretrained_weights_with_a_kaiming_head_and_zero_bias(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ClassStreamTrainer(digits, SMALL, device="cpu")
    trainer.load_draw(make_draw(digits.labels, SMALL, 0, "draw", 0))
    starts: list[dict[str, torch.Tensor]] = []

    def record(parameters: Any, **options: Any) -> Any:
        starts.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        return torch.optim.SGD(parameters, lr=options["lr"])

    monkeypatch.setattr(class_stream_module, "Adam", record)
    trainer.run(0.1)
    trainer.run(0.1)
    for start in starts:
        assert all(torch.equal(start[name], tensor) for name, tensor in digits.w0.items())
        assert start["head.bias"].abs().max() == 0
        expected = (2 / start["head.weight"].shape[1]) ** 0.5
        assert start["head.weight"].std().item() == pytest.approx(expected, rel=0.15)
    assert torch.equal(starts[0]["head.weight"], starts[1]["head.weight"])


@pytest.mark.parametrize("layers", ["all", "head"])
def test_smaller_batches_of_large_images_give_the_same_result(
    digits: Task, layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SMALL, train_layers=layers)
    draw = make_draw(digits.labels, settings, 0, "draw", 0)
    accuracies, largest = [], []
    for reference_size in (224, 7):  # with 7 px, batches of images of 28 px are 16 times smaller
        monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", reference_size)
        monkeypatch.setattr(class_stream_module, "INFERENCE_BATCH_SIZE", 64)
        trainer = ClassStreamTrainer(digits, settings, device="cpu")
        sizes: list[int] = []
        trainer.model.units[0].register_forward_pre_hook(lambda module, inputs, s=sizes: s.append(len(inputs[0])))
        trainer.load_draw(draw)
        accuracies.append(trainer.run(1e-2))
        largest.append(max(sizes))
    assert largest[0] > largest[1] == 4
    assert accuracies[0] == pytest.approx(accuracies[1])


@pytest.mark.parametrize(("layers", "changes"), [("all", True), ("head", False)])
def test_head_only_does_not_change_the_units(digits: Task, layers: str, changes: bool) -> None:
    settings = dataclasses.replace(SMALL, train_layers=layers)
    trainer = ClassStreamTrainer(digits, settings, device="cpu")
    trainer.load_draw(make_draw(digits.labels, settings, 0, "draw", 0))
    trainer.run(1e-2)
    changed = any(not torch.equal(trainer.model.state_dict()[name], tensor) for name, tensor in digits.w0.items())
    assert changed is changes


def test_head_only_on_features_equals_training_on_images(digits: Task) -> None:
    settings = dataclasses.replace(SMALL, train_layers="head", protocol="standard", epochs=3, batch_size=4)
    trainer = ClassStreamTrainer(digits, settings, device="cpu")
    trainer.load_draw(make_draw(digits.labels, settings, 0, "draw", 0))
    accuracies = trainer.run(1e-2)
    weight = trainer.model.head.weight.detach().clone()
    reference = ClassStreamTrainer(digits, dataclasses.replace(settings, train_layers="all"), device="cpu")
    reference.load_draw(make_draw(digits.labels, settings, 0, "draw", 0))
    for parameter in reference.model.units.parameters():
        parameter.requires_grad_(False)
    assert reference.run(1e-2) == accuracies
    torch.testing.assert_close(reference.model.head.weight.detach(), weight, atol=1e-4, rtol=1e-3)


def test_batch_statistics_keep_their_pretrained_values(digits_batchnorm: Task) -> None:
    settings = dataclasses.replace(SMALL, train=2, test=1)
    trainer = ClassStreamTrainer(digits_batchnorm, settings, device="cpu")
    trainer.load_draw(make_draw(digits_batchnorm.labels, settings, 0, "draw", 0))
    trainer.run(1e-3)
    state = trainer.model.state_dict()
    running = [name for name in digits_batchnorm.w0 if "running" in name]
    assert running and all(torch.equal(state[name], digits_batchnorm.w0[name]) for name in running)


class Recorder(ClassStreamTrainer):
    """Records draws and runs without training; the accuracy depends on the learning rate only."""

    drawn: list[ClassDraw]
    ran: list[tuple[int, float]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Recorder.drawn, Recorder.ran = [], []

    def load_draw(self, draw: ClassDraw) -> None:
        Recorder.drawn.append(draw)

    def run(self, rate: float) -> tuple[float, float]:
        Recorder.ran.append((len(Recorder.drawn), rate))
        return {1e-2: 0.3, 1e-3: 0.7, 1e-4: 0.5}[rate], 1.0


def test_the_rate_is_chosen_on_draws_that_are_not_evaluated(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_stream_module, "ClassStreamTrainer", Recorder)
    settings = dataclasses.replace(SMALL, rates=(1e-2, 1e-3, 1e-4), sweep_draws=2, draws=3)
    reported: list[tuple[str, int, int]] = []
    result = run_class_stream(digits, settings, progress=lambda *values: reported.append(values))
    assert Recorder.ran == [(d, r) for d in (1, 2) for r in settings.rates] + [(d, 1e-3) for d in (3, 4, 5)]
    assert len({draw.seed for draw in Recorder.drawn}) == 5
    images = [tuple(map(tuple, draw.train)) for draw in Recorder.drawn]
    assert len(set(images)) == 5
    assert (result.rate, result.accuracies) == (1e-3, (0.7, 0.7, 0.7))
    assert result.sweep == {1e-2: (0.3, 0.3), 1e-3: (0.7, 0.7), 1e-4: (0.5, 0.5)}
    assert [done for _, done, _ in reported] == list(range(1, 10)) and reported[-1] == ("continual transfer", 9, 9)


def test_a_single_rate_has_no_sweep(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_stream_module, "ClassStreamTrainer", Recorder)
    result = run_class_stream(digits, dataclasses.replace(SMALL, rates=(1e-2,)))
    assert Recorder.ran == [(1, 1e-2), (2, 1e-2)]
    assert (result.sweep, result.rate) == ({}, 1e-2)


def test_sources_are_paired_by_draw(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_stream_module, "ClassStreamTrainer", Recorder)
    run_class_stream(digits, SMALL, 3)
    first = [draw.seed for draw in Recorder.drawn]
    run_class_stream(dataclasses.replace(digits, w0={n: t + 1 for n, t in digits.w0.items()}), SMALL, 3)
    assert [draw.seed for draw in Recorder.drawn] == first
    run_class_stream(digits, SMALL, 4)
    assert not set(first) & {draw.seed for draw in Recorder.drawn}


def test_a_stream_learns_and_is_reproducible_bit_for_bit(digits: Task) -> None:
    settings = ClassStreamSettings(
        protocol="standard", classes=5, train=15, test=5, draws=2, rates=(2e-3,), epochs=8, batch_size=8
    )
    first, again = run_class_stream(digits, settings, device="cpu"), run_class_stream(digits, settings, device="cpu")
    assert first.accuracies == again.accuracies and first.train_accuracies == again.train_accuracies
    assert first.accuracy > 0.5
    facts = first.to_dict()
    assert facts["steps"] == 80 and facts["rate"] == 2e-3 and facts["accuracies"] == list(first.accuracies)


def test_a_diverged_run_has_accuracy_0(digits: Task) -> None:
    trainer = ClassStreamTrainer(digits, SMALL, device="cpu")
    trainer.load_draw(make_draw(digits.labels, SMALL, 0, "draw", 0))
    assert trainer.run(1e38) == (0.0, 0.0)


def test_the_lower_rate_wins_ties() -> None:
    assert best_learning_rate({1e-2: [0.5, 0.5], 1e-3: [0.4, 0.6], 1e-1: [0.1, 0.2]}) == 1e-3


def test_the_published_rates() -> None:
    assert (DEFAULT_RATES[0], DEFAULT_RATES[-1]) == (0.055, 4e-5)
    ratios = [a / b for a, b in itertools.pairwise(DEFAULT_RATES)]
    assert max(ratios) / min(ratios) < 1.1


def test_too_many_classes_or_images_are_refused(digits: Task) -> None:
    assert limit_classes(ClassStreamSettings(skip_classes=2), digits).classes == 3
    assert limit_classes(ClassStreamSettings(classes=2), digits).classes == 2
    with pytest.raises(UsageError, match="classes 4: the dataset has 3 after the first 2"):
        run_class_stream(digits, ClassStreamSettings(classes=4, skip_classes=2))
    with pytest.raises(UsageError, match="classes 600: the dataset has 5; give --classes N"):
        run_class_stream(digits, ClassStreamSettings())
    with pytest.raises(UsageError, match=r"class '\d' has \d+ images, but 900 training images and 5 test images"):
        run_class_stream(digits, ClassStreamSettings(classes=5, train=900))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protocol": "continuel"}, "did you mean continual"),
        ({"train_layers": "body"}, "train layers 'body'"),
        ({"train": 0}, "train: 0"),
        ({"sweep_draws": 0}, "sweep draws: 0"),
        ({"classes": 1}, "classes 1"),
        ({"skip_classes": -1}, "skip classes -1"),
        ({"rates": ()}, "rates: none"),
        ({"rates": (0.0,)}, "rates: 0 is not above 0"),
    ],
)
def test_errors_name_the_invalid_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClassStreamSettings(**values)
