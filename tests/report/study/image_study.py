"""A study of images in a folder, with predictions of its test images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nbt.task.data import decode_selection, select_images
from nbt.task.load import task_fingerprint
from nbt.task.options import check_task_options
from nbt.training.metrics import Predictions
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import StudyRecord, TestRecord
from tests.sample_study import BEST, sample_study, with_config

SIZE = 16
COLORS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}


def write_images(folder: Path, names: tuple[str, ...] = tuple(COLORS), per_class: int = 8) -> None:
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        color = list(COLORS.values())[i % 3]
        for number in range(per_class):
            Image.new("RGB", (SIZE + number, SIZE), color).save(folder / name / f"{number}.png")


def image_study(folder: Path, *, dataset: str | None = None, **changes: Any) -> StudyRecord:
    """Returns a finished study of the images in a folder, which are written unless it has some.

    The model predicts the class after the true one for the first test image, with a probability of .9, and is right
    for the others: with .5 for the second and .8 from the third on.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        write_images(folder)
    options = check_task_options(folder, backbone="conv3", weights="none", image_size=SIZE)
    data = decode_selection(select_images(options, None), options, SIZE, None)
    labels, index = data.listing.labels, data.split.test.astype(np.int32)
    predictions = predict(labels[index], index, len(data.listing.class_names))
    values = {
        "dataset": {"unreadable_images": len(data.images.unreadable)},
        "class_names": data.listing.class_names,
        "class_images": tuple(np.bincount(labels).tolist()),
        "load_predictions": {codec.test_key(BEST): predictions}.get,
        "test": (
            TestRecord(
                name="recommended",
                accuracy=wilson_interval(1 - 1 / len(index), len(index)),
                loss=0.5,
                n=len(index),
            ),
        ),
    }
    return with_config(
        sample_study(**{**values, **changes}),
        dataset=dataset or str(folder),
        data_dir=None,
        backbone="conv3",
        weights="none",
        image_size=SIZE,
        data_hash=task_fingerprint(data.listing, SIZE, options),
    )


def predict(labels: np.ndarray, index: np.ndarray, classes: int) -> Predictions:
    predicted, top = labels.copy(), np.full(len(labels), 0.8)
    predicted[0] = (labels[0] + 1) % classes
    top[:2] = 0.9, 0.5
    rest = (1 - top) / (classes - 1)
    probabilities = np.repeat(rest[:, None], classes, axis=1)
    probabilities[np.arange(len(labels)), predicted] = top
    return Predictions(labels, np.log(probabilities), index)


def without_images(record: StudyRecord) -> StudyRecord:
    return dataclasses.replace(record, search=record.search_config().replace(images=False))
