"""Images on the device of the trials, with simulated GPUs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nbt.data.image_store import ImageStore
from nbt.seeds import generator
from nbt.task.task import Task
from nbt.training.recipe.augmentation import draw_augmentation_plan
from nbt.training.worker import device_images as device_images_module
from nbt.training.worker.context import WorkerContext
from nbt.training.worker.device_images import copy_in_chunks, device_resident_images

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(10, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def mapped(array: np.ndarray, tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "images.npy", array)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


def simulate_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Simulates GPU 1 with a number of free bytes; copies to it stay in the CPU's memory."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free if device == GPU else 0, 10**12))
    monkeypatch.setattr(device_images_module, "copy_in_chunks", lambda images, device: copy_in_chunks(images, CPU))


@pytest.mark.parametrize("kind", ["array", "mapped"])
def test_a_gpu_holds_images_that_need_less_than_a_quarter_of_its_free_memory(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = request.getfixturevalue(kind)
    simulate_gpu(monkeypatch, 4 * images.nbytes + 4)
    result = device_resident_images(images, GPU)
    assert result is not None
    assert np.array_equal(result.numpy(), images)
    assert device_resident_images(images, GPU, workers_per_device=2) is None
    simulate_gpu(monkeypatch, 4 * images.nbytes)
    assert device_resident_images(images, GPU) is None


def test_without_a_gpu_an_array_is_not_copied_and_a_memory_map_is_not_read(
    array: np.ndarray, mapped: np.ndarray
) -> None:
    result = device_resident_images(array, CPU)
    assert result is not None
    assert result.data_ptr() == array.ctypes.data
    assert device_resident_images(mapped, CPU) is None


def test_chunks_form_the_complete_array(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_images_module, "_COPY_CHUNK_BYTES", 3 * mapped[0].nbytes)
    result = copy_in_chunks(mapped, CPU)
    assert result.dtype == torch.uint8
    assert np.array_equal(result.numpy(), mapped)


def memory_mapped(task: Task, folder: Path) -> Task:
    np.save(folder / "images.npy", np.asarray(task.images.array))
    return dataclasses.replace(task, images=ImageStore(np.load(folder / "images.npy", mmap_mode="r")))


def assert_same_batches(a: WorkerContext, b: WorkerContext) -> None:
    index = torch.from_numpy(a.task.split.train)
    plan = draw_augmentation_plan("rand", len(index), generator(0, "plan"), mirror=True).to(a.device)
    assert torch.equal(a.load_images(index, plan), b.load_images(index, plan))


def test_batches_equal_those_from_the_file(digits: Task, tmp_path: Path) -> None:
    task = memory_mapped(digits, tmp_path)
    from_file, from_device = WorkerContext(task, device="cpu"), WorkerContext(task, device="cpu")
    from_device._images = copy_in_chunks(task.images.array, CPU)
    assert from_file._images is None
    assert_same_batches(from_file, from_device)


@pytest.mark.gpu
def test_batches_on_a_gpu_equal_those_from_the_file(digits: Task, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    task = memory_mapped(digits, tmp_path)
    from_device, from_file = (
        WorkerContext(task, device="cuda"),
        WorkerContext(task, device="cuda", workers_per_device=10**9),
    )
    assert from_device._images is not None and from_device._images.device.type == "cuda"
    assert from_file._images is None
    assert_same_batches(from_file, from_device)
