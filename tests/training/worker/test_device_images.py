"""Images on the device of the trials: when, and that they are the same images. The GPUs are imagined."""

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
from nbt.training.worker import device_images as resident
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


def imagine_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Gives GPU 1 some free bytes; what is copied to it stays here."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free if device == GPU else 0, 10**12))
    monkeypatch.setattr(resident, "copy_in_chunks", lambda images, device: copy_in_chunks(images, CPU))


@pytest.mark.parametrize("kind", ["array", "mapped"])
def test_a_gpu_has_them_where_they_take_less_than_its_share_of_a_quarter(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = request.getfixturevalue(kind)
    imagine_gpu(monkeypatch, 4 * images.nbytes + 4)
    found = device_resident_images(images, GPU)
    assert found is not None
    assert np.array_equal(found.numpy(), images)
    assert device_resident_images(images, GPU, workers_per_device=2) is None
    imagine_gpu(monkeypatch, 4 * images.nbytes)
    assert device_resident_images(images, GPU) is None


def test_without_a_gpu_an_array_is_used_as_it_is_and_a_memory_map_stays_on_the_disk(
    array: np.ndarray, mapped: np.ndarray
) -> None:
    found = device_resident_images(array, CPU)
    assert found is not None
    assert found.data_ptr() == array.ctypes.data
    assert device_resident_images(mapped, CPU) is None


def test_slices_make_up_the_whole(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_COPY_CHUNK_BYTES", 3 * mapped[0].nbytes)
    found = copy_in_chunks(mapped, CPU)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), mapped)


def memory_mapped(task: Task, folder: Path) -> Task:
    np.save(folder / "images.npy", np.asarray(task.images.array))
    return dataclasses.replace(task, images=ImageStore(np.load(folder / "images.npy", mmap_mode="r")))


def assert_same_batches(one: WorkerContext, other: WorkerContext) -> None:
    index = torch.from_numpy(one.task.split.train)
    plan = draw_augmentation_plan("rand", len(index), generator(0, "plan"), mirror=True).to(one.device)
    assert torch.equal(one.load_images(index, plan), other.load_images(index, plan))


def test_batches_are_those_that_are_gathered_from_the_file(digits: Task, tmp_path: Path) -> None:
    task = memory_mapped(digits, tmp_path)
    gathering, resting = WorkerContext(task, device="cpu"), WorkerContext(task, device="cpu")
    resting._images = copy_in_chunks(task.images.array, CPU)
    assert gathering._images is None
    assert_same_batches(gathering, resting)


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_that_are_gathered_from_the_file(digits: Task, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    task = memory_mapped(digits, tmp_path)
    resting, gathering = (
        WorkerContext(task, device="cuda"),
        WorkerContext(task, device="cuda", workers_per_device=10**9),
    )
    assert resting._images is not None and resting._images.device.type == "cuda"
    assert gathering._images is None
    assert_same_batches(gathering, resting)
