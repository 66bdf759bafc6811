"""The estimate of the memory of a worker."""

from __future__ import annotations

from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.worker.trial_memory import estimate_trial_memory

MIB = 1 << 20


def test_a_tiny_network_takes_the_memory_of_the_process(digits: Task) -> None:
    assert 450 * MIB < estimate_trial_memory(digits) < 600 * MIB


def test_wider_networks_and_larger_images_take_more(digits_batchnorm: Task) -> None:
    narrow = estimate_trial_memory(digits_batchnorm)
    wide = load_task("digits", backbone="mobilenet_v2(width_mult=0.5)", weights="none", shots=12, image_size=32)
    large = load_task("digits", backbone="mobilenet_v2(width_mult=0.1)", weights="none", shots=12, image_size=64)
    assert narrow < estimate_trial_memory(wide)
    # The outputs of the layers grow with the area of the images.
    base = 450 * MIB
    assert 2.5 < (estimate_trial_memory(large) - base) / (narrow - base) < 4.5


def test_the_measured_peak_of_mobilenet_is_within_the_estimate() -> None:
    # Measured on 96 px with batches of 32: 1227 MiB at the peak, of which 438 MiB before the first step.
    task = load_task("digits", backbone="mobilenet_v2", weights="none", shots=12, image_size=96)
    assert 438 * MIB + 2 * 789 * MIB < estimate_trial_memory(task) < 2.5e9
