"""Transfer protocols: which images in which order, what trains, and how the rate is chosen."""

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
from nbt.training.pretrain import class_stream as stream
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
def test_a_draw_has_fresh_classes_and_images_of_them(classes: int, train: int, test: int, skip: int, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(80) % 8)
    settings = ClassStreamSettings(classes=classes, train=train, test=test, skip_classes=skip)
    draw = make_draw(labels, settings, seed, "draw", 0)
    assert draw.train.shape == (classes, train) and draw.test.shape == (classes, test)
    assert len(set(draw.classes.tolist())) == classes and draw.classes.min() >= skip
    images = [*draw.train.flatten().tolist(), *draw.test.flatten().tolist()]
    assert len(set(images)) == len(images)
    for place, label in enumerate(draw.classes):
        assert (labels[draw.train[place]] == label).all() and (labels[draw.test[place]] == label).all()
    again = make_draw(labels, settings, seed, "draw", 0)
    assert (again.train == draw.train).all() and again.seed == draw.seed
    assert make_draw(labels, settings, seed, "draw", 1).seed != draw.seed


def spy_on_inputs(learner: ClassStreamTrainer) -> list[torch.Tensor]:
    """Notes the inputs of every step of training."""
    seen: list[torch.Tensor] = []

    def note(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            seen.append(inputs[0])

    (learner.model.head if learner.head_only else learner.model).register_forward_pre_hook(note)
    return seen


@pytest.mark.parametrize("layers", ["all", "head"])
def test_continual_takes_class_after_class_one_image_a_step_each_once(digits: Task, layers: str) -> None:
    settings = dataclasses.replace(SMALL, train_layers=layers)
    learner = ClassStreamTrainer(digits, settings, device="cpu")
    learner.take(make_draw(digits.labels, settings, 0, "draw", 0))
    seen = spy_on_inputs(learner)
    learner.run(1e-3)
    assert [len(batch) for batch in seen] == [1] * 12
    assert torch.equal(torch.cat(seen), learner.train)
    assert learner.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    rows = learner.draw.train.reshape(-1)
    assert (digits.labels[rows] == np.repeat(learner.draw.classes, 4)).all()


@given(train=st.integers(1, 9), batch=st.integers(1, 40), epochs=st.integers(1, 3))
def test_standard_takes_shuffled_batches_and_every_image_once_an_epoch(train: int, batch: int, epochs: int) -> None:
    settings = ClassStreamSettings(protocol="standard", classes=4, train=train, batch_size=batch, epochs=epochs)
    batches = class_stream_batches(settings, 0)
    assert len(batches) == settings.steps()
    assert all(len(rows) <= batch for rows in batches)
    order = torch.cat(batches).view(epochs, -1)
    assert (order.sort(dim=1).values == torch.arange(4 * train)).all()
    if epochs > 1 and train > 3:
        assert not torch.equal(order[0], order[1])
        assert not torch.equal(order[0], torch.arange(4 * train))


def test_every_run_starts_from_the_pretrained_weights_with_a_kaiming_head_of_no_bias(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = ClassStreamTrainer(digits, SMALL, device="cpu")
    learner.take(make_draw(digits.labels, SMALL, 0, "draw", 0))
    starts: list[dict[str, torch.Tensor]] = []

    def note(parameters: Any, **options: Any) -> Any:
        starts.append({name: tensor.clone() for name, tensor in learner.model.state_dict().items()})
        return torch.optim.SGD(parameters, lr=options["lr"])

    monkeypatch.setattr(stream.torch.optim, "Adam", note)
    learner.run(0.1)
    learner.run(0.1)
    for start in starts:
        assert all(torch.equal(start[name], tensor) for name, tensor in digits.w0.items())
        assert start["head.bias"].abs().max() == 0
        expected = (2 / start["head.weight"].shape[1]) ** 0.5
        assert start["head.weight"].std().item() == pytest.approx(expected, rel=0.15)
    assert torch.equal(starts[0]["head.weight"], starts[1]["head.weight"])


@pytest.mark.parametrize("layers", ["all", "head"])
def test_large_images_are_fewer_at_a_time_and_count_the_same(
    digits: Task, layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SMALL, train_layers=layers)
    draw = make_draw(digits.labels, settings, 0, "draw", 0)
    found, most = [], []
    for usual in (224, 7):  # images of 28 px are the usual ones; or 16 times too large for as many
        monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", usual)
        monkeypatch.setattr(stream, "INFERENCE_BATCH_SIZE", 64)
        learner = ClassStreamTrainer(digits, settings, device="cpu")
        sizes: list[int] = []
        learner.model.units[0].register_forward_pre_hook(lambda module, inputs, s=sizes: s.append(len(inputs[0])))
        learner.take(draw)
        found.append(learner.run(1e-2))
        most.append(max(sizes))
    assert most[0] > most[1] == 4
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize(("layers", "moves"), [("all", True), ("head", False)])
def test_head_only_leaves_the_units(digits: Task, layers: str, moves: bool) -> None:
    settings = dataclasses.replace(SMALL, train_layers=layers)
    learner = ClassStreamTrainer(digits, settings, device="cpu")
    learner.take(make_draw(digits.labels, settings, 0, "draw", 0))
    learner.run(1e-2)
    changed = any(not torch.equal(learner.model.state_dict()[name], tensor) for name, tensor in digits.w0.items())
    assert changed is moves


def test_head_only_on_features_is_what_the_whole_network_would_do(digits: Task) -> None:
    settings = dataclasses.replace(SMALL, train_layers="head", protocol="standard", epochs=3, batch_size=4)
    learner = ClassStreamTrainer(digits, settings, device="cpu")
    learner.take(make_draw(digits.labels, settings, 0, "draw", 0))
    fast = learner.run(1e-2)
    weight = learner.model.head.weight.detach().clone()
    slow = ClassStreamTrainer(digits, dataclasses.replace(settings, train_layers="all"), device="cpu")
    slow.take(make_draw(digits.labels, settings, 0, "draw", 0))
    for parameter in slow.model.units.parameters():
        parameter.requires_grad_(False)
    assert slow.run(1e-2) == fast
    torch.testing.assert_close(slow.model.head.weight.detach(), weight, atol=1e-4, rtol=1e-3)


def test_batch_statistics_stay_as_they_were_pretrained(digits_batchnorm: Task) -> None:
    settings = dataclasses.replace(SMALL, train=2, test=1)
    learner = ClassStreamTrainer(digits_batchnorm, settings, device="cpu")
    learner.take(make_draw(digits_batchnorm.labels, settings, 0, "draw", 0))
    learner.run(1e-3)
    state = learner.model.state_dict()
    running = [name for name in digits_batchnorm.w0 if "running" in name]
    assert running and all(torch.equal(state[name], digits_batchnorm.w0[name]) for name in running)


class Recorder(ClassStreamTrainer):
    """Trains nothing; a rate's accuracy depends on the rate."""

    drawn: list[ClassDraw]
    ran: list[tuple[int, float]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Recorder.drawn, Recorder.ran = [], []

    def take(self, draw: ClassDraw) -> None:
        Recorder.drawn.append(draw)

    def run(self, rate: float) -> tuple[float, float]:
        Recorder.ran.append((len(Recorder.drawn), rate))
        return {1e-2: 0.3, 1e-3: 0.7, 1e-4: 0.5}[rate], 1.0


def test_the_rate_is_chosen_on_draws_that_are_not_evaluated(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ClassStreamTrainer", Recorder)
    settings = dataclasses.replace(SMALL, rates=(1e-2, 1e-3, 1e-4), sweep_draws=2, draws=3)
    told: list[tuple[str, int, int]] = []
    result = run_class_stream(digits, settings, progress=lambda *what: told.append(what))
    assert Recorder.ran == [(d, r) for d in (1, 2) for r in settings.rates] + [(d, 1e-3) for d in (3, 4, 5)]
    assert len({draw.seed for draw in Recorder.drawn}) == 5
    kinds = [tuple(map(tuple, draw.train)) for draw in Recorder.drawn]
    assert len(set(kinds)) == 5
    assert (result.rate, result.accuracies) == (1e-3, (0.7, 0.7, 0.7))
    assert result.sweep == {1e-2: (0.3, 0.3), 1e-3: (0.7, 0.7), 1e-4: (0.5, 0.5)}
    assert [done for _, done, _ in told] == list(range(1, 10)) and told[-1] == ("continual transfer", 9, 9)


def test_one_rate_needs_no_sweep(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ClassStreamTrainer", Recorder)
    result = run_class_stream(digits, dataclasses.replace(SMALL, rates=(1e-2,)))
    assert Recorder.ran == [(1, 1e-2), (2, 1e-2)]
    assert (result.sweep, result.rate) == ({}, 1e-2)


def test_sources_are_paired_by_draw(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ClassStreamTrainer", Recorder)
    run_class_stream(digits, SMALL, 3)
    first = [draw.seed for draw in Recorder.drawn]
    run_class_stream(dataclasses.replace(digits, w0={n: t + 1 for n, t in digits.w0.items()}), SMALL, 3)
    assert [draw.seed for draw in Recorder.drawn] == first
    run_class_stream(digits, SMALL, 4)
    assert not set(first) & {draw.seed for draw in Recorder.drawn}


def test_a_stream_learns_and_repeats_bit_for_bit(digits: Task) -> None:
    settings = ClassStreamSettings(
        protocol="standard", classes=5, train=15, test=5, draws=2, rates=(2e-3,), epochs=8, batch_size=8
    )
    first, again = run_class_stream(digits, settings, device="cpu"), run_class_stream(digits, settings, device="cpu")
    assert first.accuracies == again.accuracies and first.train_accuracies == again.train_accuracies
    assert first.accuracy > 0.5
    facts = first.to_dict()
    assert facts["steps"] == 80 and facts["rate"] == 2e-3 and facts["accuracies"] == list(first.accuracies)


def test_a_rate_that_diverges_counts_as_0(digits: Task) -> None:
    learner = ClassStreamTrainer(digits, SMALL, device="cpu")
    learner.take(make_draw(digits.labels, SMALL, 0, "draw", 0))
    assert learner.run(1e38) == (0.0, 0.0)


def test_ties_go_to_the_smaller_rate() -> None:
    assert best_learning_rate({1e-2: [0.5, 0.5], 1e-3: [0.4, 0.6], 1e-1: [0.1, 0.2]}) == 1e-3


def test_the_published_rates() -> None:
    assert (DEFAULT_RATES[0], DEFAULT_RATES[-1]) == (0.055, 4e-5)
    ratios = [a / b for a, b in itertools.pairwise(DEFAULT_RATES)]
    assert max(ratios) / min(ratios) < 1.1


def test_no_more_classes_than_there_are(digits: Task) -> None:
    assert limit_classes(ClassStreamSettings(skip_classes=2), digits).classes == 3
    assert limit_classes(ClassStreamSettings(classes=2), digits).classes == 2
    with pytest.raises(UsageError, match="classes 4: the dataset has 3 after the first 2"):
        run_class_stream(digits, ClassStreamSettings(classes=4, skip_classes=2))
    with pytest.raises(UsageError, match="classes 600: the dataset has 5; give --classes N"):
        run_class_stream(digits, ClassStreamSettings())
    with pytest.raises(UsageError, match=r"class '\d' has \d+ images, 900 to train and 5 to test"):
        run_class_stream(digits, ClassStreamSettings(classes=5, train=900))


@pytest.mark.parametrize(
    ("values", "words"),
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
def test_wrong_values_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ClassStreamSettings(**values)
