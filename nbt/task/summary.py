"""A summary of a task's data, for display, reports and the study's storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbt.task.task import Task


def dataset_summary(task: Task) -> dict[str, Any]:
    """Summarises the data of a task in plain JSON types.

    Returns:
        Number of classes; numbers of training, validation and test images; images per class of train and validation
        together (minimum, median, maximum) and their imbalance (maximum divided by minimum); image size in pixels;
        whether the validation images are official, which makes them the same for every seed; number of validation
        images of a balanced part in which a mean over classes has the same standard error (None without validation
        images); share of validation images; standard error of a validation accuracy of .5 (None without validation
        images); number of unreadable images.
    """
    import numpy as np

    from nbt.data.splits import validation_standard_error

    labelled = np.concatenate([task.split.train, task.split.val])
    counts = np.bincount(task.labels[labelled], minlength=task.n_classes)
    n_val = len(task.split.val)
    of_class = np.bincount(task.labels[task.split.val])
    of_class = of_class[of_class > 0]
    return {
        "classes": task.n_classes,
        "train_images": len(task.split.train),
        "validation_images": n_val,
        "effective_validation_images": round(len(of_class) ** 2 / float((1 / of_class).sum())) if n_val else None,
        "validation_fixed": task.pools.val is not None,
        "test_images": len(task.split.test),
        "class_images_min": int(counts.min()),
        "class_images_median": float(np.median(counts)),
        "class_images_max": int(counts.max()),
        "imbalance": round(float(counts.max() / counts.min()), 3),
        "image_size": task.image_size,
        "validation_share": round(n_val / len(labelled), 4),
        "validation_standard_error": round(validation_standard_error(0.5, n_val), 4) if n_val else None,
        "unreadable_images": len(task.images.unreadable),
    }
