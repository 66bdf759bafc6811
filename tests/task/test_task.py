"""Tasks: models whose running statistics are re-estimated on the training images of the target."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nbt.models.batch_norm import initial_statistics
from nbt.task.load import load_task
from nbt.task.task import Task

LAYERS = ("units.0.1", "units.2.conv.1.1")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=12, image_size=32)


def test_a_model_of_the_task_has_re_estimated_statistics(task: Task) -> None:
    assert set(LAYERS) < set(initial_statistics(task.build_model().state_dict()))
    model = dataclasses.replace(task, stale_statistics=LAYERS).build_model()
    changed = {name for name, tensor in model.unit_state_dict().items() if not torch.equal(tensor, task.w0[name])}
    assert changed == {
        f"{layer}.{role}" for layer in LAYERS for role in ("running_mean", "running_var", "num_batches_tracked")
    }
    with torch.no_grad():
        inputs = model.units[0][0](task.load_images(task.split.train, torch.device("cpu")))
    torch.testing.assert_close(model.units[0][1].running_mean, inputs.mean((0, 2, 3)), rtol=0.01, atol=1e-3)


def test_they_are_those_of_the_training_images_of_the_split(task: Task) -> None:
    means = [
        dataclasses.replace(task.with_split_seed(seed), stale_statistics=LAYERS).build_model().units[0][1].running_mean
        for seed in (0, 0, 1)
    ]
    assert torch.equal(means[0], means[1]) and not torch.equal(means[0], means[2])


def test_the_identity_of_the_weights_includes_the_mark_but_not_the_estimates(task: Task) -> None:
    marked = dataclasses.replace(task, stale_statistics=LAYERS)
    assert marked.weights_hash != task.weights_hash
    assert marked.weights_hash == marked.with_split_seed(1).weights_hash
    marked.build_model()
    assert all(torch.equal(marked.w0[name], tensor) for name, tensor in task.w0.items()), "w0 is never modified"
