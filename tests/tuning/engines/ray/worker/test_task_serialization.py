import dataclasses
from pathlib import Path

import numpy as np

from nbt.task.load import load_task
from nbt.training.source_accuracy import reference_accuracy
from nbt.tuning.engines.ray.worker.task_serialization import from_shared_arrays, shared_nbytes, to_shared_arrays
from tests.source_images import BACKBONE, save_source_images, save_source_weights


def test_images_of_the_source_travel_without_files(tmp_path: Path) -> None:
    weights, images = save_source_weights(tmp_path / "w.safetensors"), save_source_images(tmp_path / "images")
    plain = load_task("digits", backbone=BACKBONE, weights=weights, shots=6)
    task = load_task("digits", backbone=BACKBONE, weights=weights, shots=6, source_data=images)
    task = dataclasses.replace(task, candidates={"same": task})
    shared = to_shared_arrays(task)
    assert type(shared.source_data.images.array) is np.ndarray and shared.source_data.images.path is None
    assert shared.candidates["same"].source_data.images is shared.source_data.images
    assert shared_nbytes(shared) - shared_nbytes(plain) > 60 * 28 * 28 * 3
    assert reference_accuracy(from_shared_arrays(shared), "cpu") == reference_accuracy(task, "cpu")
