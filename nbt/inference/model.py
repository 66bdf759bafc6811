"""TransferModel: a trained model that classifies images."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nbt.data.image_store import DecodeOptions, iter_decoded
from nbt.data.resolve import DatasetSource
from nbt.devices import autocast, inference_batch_size, normalise, pick_device
from nbt.errors import UsageError, nearest, require_positive, with_python_names
from nbt.inference.evaluation import ModelEvaluation
from nbt.inference.images import ImageSource, find_images
from nbt.inference.labelled import PARTS, LabelledImages, check_labelled, labelled_images_of, read_labelled
from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.models.backbone import Backbone
from nbt.object_html import table_html
from nbt.progress import Progress
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.exported_model import load_module
from nbt.training.export.model_folder import find_model
from nbt.training.metrics import Predictions
from nbt.transfer.linearize import FirstOrder

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("nbt")

BATCH_SIZE = 64
"""Images per batch up to 224 px, see `nbt.devices.inference_batch_size`."""

_MAX_NAMES_SHOWN = 5

FloatArray = npt.NDArray[np.float32]


def load_model(folder: str | Path, device: str | None = None) -> TransferModel:
    """Loads a trained model.

    Args:
        folder: The folder `model/` of a study, a folder written by `nbt train --export`, or a file written by
            `nbt export --format safetensors`.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.

    Returns:
        The model, which classifies images, files and folders.

    Raises:
        UsageError: The folder is not a model folder of a known version, the folder is damaged, or there is no such
            device.

    Examples:
        >>> import nbt
        >>> model = nbt.load_model("model")
        >>> model
        TransferModel(conv3(width=8), 3 classes, 28 px, cpu)
        >>> model.predict("photos/")[["path", "label"]]
                   path  label
        0  photos/a.png  rings
        1  photos/b.png  waves
    """
    path = find_model(folder)
    target = pick_device(device)
    module, card = load_module(path)
    return TransferModel(module, card, path, target)


class TransferModel:
    """A trained image classifier; `nbt.load_model` loads it.

    Images are decoded, resized and normalised as in the training, in batches, so that only the results of all images
    are in memory at once. Files that cannot be read are never left out: `predict` lists them with the reason.

    Args:
        module: Maps normalised images, (n, 3, H, H), to logits, (n, C), divided by the temperature.
        card: The card of the model folder.
        path: Path of the model folder.
        device: Device on which the model runs.

    Attributes:
        class_names: Names of the C classes, in the order of all probabilities.
        image_size: Height and width to which images are resized, in pixels.
        settings: The settings of the training.
        metadata: The card of the model folder (`model.json`): backbone, dataset, normalisation and others.
        path: Path of the model folder.
        device: Device on which the model runs.
        module: Maps normalised images, (n, 3, H, H), to logits, (n, C), divided by the temperature.

    Examples:
        >>> model = nbt.load_model("model")
        >>> model.class_names
        ('rings', 'stripes', 'waves')
        >>> model.predict_proba("photos/").max(axis=1).round(1)
        array([0.9, 0.6], dtype=float32)
        >>> model.embed("photos/").shape
        (2, 72)
        >>> images = torch.zeros(4, 3, model.image_size, model.image_size, dtype=torch.uint8)
        >>> model.to_torch()(images).shape
        torch.Size([4, 3])
    """

    def __init__(self, module: Backbone | FirstOrder, card: dict[str, Any], path: Path, device: torch.device) -> None:
        self.path, self.device, self.metadata = path, device, card
        self.class_names: tuple[str, ...] = tuple(card["class_names"])
        self.image_size: int = card["image_size"]
        self.module = module.to(device).to(memory_format=torch.channels_last).eval()
        ranges = {kind: (low, high) for kind, (low, high) in card.get("value_ranges", {}).items()}
        self._decode_options = DecodeOptions(card.get("resize", "crop"), ranges)
        self._mean = torch.tensor(card["mean"], device=device)
        self._std = torch.tensor(card["std"], device=device)

    def __repr__(self) -> str:
        return (
            f"TransferModel({self.metadata['backbone']}, {len(self.class_names)} classes, {self.image_size} px, "
            f"{self.device})"
        )

    def _repr_html_(self) -> str:
        classes = ", ".join(self.class_names[:_MAX_NAMES_SHOWN])
        more = f" and {n} more" if (n := len(self.class_names) - _MAX_NAMES_SHOWN) > 0 else ""
        stored = self.metadata.get("test", {}).get("metrics", {})
        tested = [(METRICS[name], entry["value"]) for name, entry in stored.items() if name in METRICS]
        rows = [
            ("classes", f"{len(self.class_names)}: {classes}{more}"),
            ("images", f"{self.image_size} px, resize {self._decode_options.resize!r}"),
            ("trained on", str(self.metadata.get("dataset", ""))),
            *((f"test {metric.label}", metric.format_score(metric.score(value))) for metric, value in tested),
            ("temperature", f"{self.temperature:g}"),
            ("device", str(self.device)),
        ]
        return table_html(f"{self.metadata['backbone']}, {self.path}", rows)

    @property
    def settings(self) -> TransferSettings:
        """The settings of the training.

        Raises:
            UsageError: They have a field of a later version of nbt.
        """
        return TransferSettings.from_dict(self.metadata["settings"])

    @property
    def temperature(self) -> float:
        """Temperature by which the logits are divided, which calibrates the probabilities; 1 without calibration."""
        return float(self.metadata.get("temperature", 1.0))

    @with_python_names
    def predict(
        self, images: Any, *, top: int = 5, recursive: bool = True, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Classifies images.

        Args:
            images: One or several paths of image files and folders; or images in memory: an array, uint8 (N, H, W, 3)
                or (H, W, 3), a tensor of uint8 or of floats in 0 ... 1, (N, 3, H, W) or (3, H, W), Pillow images, or
                a sequence of such images.
            top: Number of most likely classes per image, 1 or more.
            recursive: Whether folders are searched recursively.
            progress: Called as progress(activity, done, total).

        Returns:
            One row per image, in order, with the columns `path`, `label` (the most likely class), `probability`,
            `label_2`, `probability_2`, ... up to `top`, and `error`, which is "" or the reason why the file was
            skipped. The files in the given folders that are no images come last.

        Raises:
            UsageError: A path does not exist, a folder contains no images, or a value is of another type.
        """
        require_positive(top=top)
        source, errors = find_images(images, recursive=recursive), dict[int, str]()
        top, n = min(top, len(self.class_names)), len(source.items)
        values, classes = np.full((n, top), np.nan, dtype=np.float32), np.zeros((n, top), dtype=np.int64)
        with contextlib.closing(self._map(self.module, source, errors, progress)) as batches:
            for index, logits in batches:
                best = logits.softmax(dim=1).topk(top)
                values[index], classes[index] = best.values.cpu().numpy(), best.indices.cpu().numpy()
        return self._prediction_frame(source, errors, values, classes)

    @with_python_names
    def predict_proba(self, images: Any, *, recursive: bool = True, progress: Progress | None = None) -> FloatArray:
        """Returns the probabilities of the classes, float32 (N, C), in the order of `class_names`.

        The temperature is applied. The rows of files that cannot be read are NaN, and a warning names the files.

        Args:
            images: As in `predict`, whose first N rows are the same images.
            recursive: Whether folders are searched recursively.
            progress: Called as progress(activity, done, total).

        Raises:
            UsageError: As in `predict`.
        """

        def classify(batch: torch.Tensor) -> torch.Tensor:
            return self.module(batch).float().softmax(dim=1)  # type: ignore[no-any-return]

        return self._collect(classify, len(self.class_names), images, recursive, progress)

    @with_python_names
    def embed(self, images: Any, *, recursive: bool = True, progress: Progress | None = None) -> FloatArray:
        """Returns the features of the last layer before the head, float32 (N, D), before any normalisation.

        Those of a linearised model are its features at the weights around which it is expanded.

        Args:
            images: As in `predict_proba`; the rows of files that cannot be read are NaN.
            recursive: Whether folders are searched recursively.
            progress: Called as progress(activity, done, total).

        Raises:
            UsageError: As in `predict`.
        """
        backbone = cast(Backbone, self.module.base if isinstance(self.module, FirstOrder) else self.module)
        return self._collect(backbone.features, backbone.feature_dim, images, recursive, progress)

    @with_python_names
    def evaluate(
        self,
        data: str | Path | DatasetSource | Task,
        *,
        part: str | None = None,
        metric: str | None = None,
        ignore_unknown: bool = False,
        progress: Progress | None = None,
    ) -> ModelEvaluation:
        """Evaluates the model on labelled images whose classes have the names of its classes.

        Args:
            data: A folder with one subfolder per class, such a folder with parts, a CSV manifest, the name of a known
                dataset, or a loaded task that has the image size of the model.
            part: "test", "val", "train" or "all". "test" are the official test images, or those that nbt held out.
                None chooses "test" if there are official test images, or if the dataset has the name of the one that
                the model was trained on, and else "all"; "test" for a task.
            metric: The metric that stands first; that of the training when None.
            ignore_unknown: Whether images of classes that the model does not know are left out.
            progress: Called as progress(activity, done, total).

        Returns:
            All metrics with 95 % intervals over the images, results by class and the confusion matrix.

        Raises:
            UsageError: The data are malformed, have classes that the model does not know, no readable image, or a task
                has other images than the model expects; or the part or metric is unknown.

        Examples:
            >>> result = nbt.load_model("model").evaluate("labelled/")
            >>> result
            ModelEvaluation(accuracy 80.0 %, 60 images, part 'all')
            >>> result.classes[["name", "images", "recall"]]
                  name  images  recall
            0  stripes      20    0.65
            1    waves      20    0.75
            2    rings      20    1.00
        """
        metric = metric or self.metadata.get("metric", DEFAULT_METRIC)
        if metric not in METRICS:
            raise UsageError(f"metric {metric!r}: {nearest(metric, METRICS)}")
        labelled = self._labelled(data, part, ignore_unknown, progress)
        source, errors = labelled.source, dict[int, str]()
        scores = np.full((len(source.items), len(self.class_names)), np.nan)
        with contextlib.closing(self._map(self.module, source, errors, progress)) as batches:
            for index, logits in batches:
                scores[index] = logits.double().log_softmax(dim=1).cpu().numpy()
        read = np.setdiff1d(np.arange(len(scores)), list(errors)).astype(np.int32)
        if not len(read):
            raise UsageError(f"none of the {len(scores)} images can be read; the first: {next(iter(errors.values()))}")
        return ModelEvaluation(
            metric=metric,
            class_names=self.class_names,
            results=Predictions(labelled.labels[read], scores[read], read),
            paths=source.names,
            errors=errors,
            passed_over=source.passed_over,
            part=labelled.part,
            reason=labelled.reason,
        )

    def _labelled(
        self, data: str | Path | DatasetSource | Task, part: str | None, ignore_unknown: bool, progress: Progress | None
    ) -> LabelledImages:
        """Returns the labelled images of a dataset or task.

        Raises:
            UsageError: As in `evaluate`.
        """
        if part is not None and part not in PARTS:
            raise UsageError(f"part {part!r}: expected one of {', '.join(PARTS)}")
        if isinstance(data, Task):
            expected = (self.image_size, *self._decode_options)
            if (data.image_size, data.resize, dict(data.images.value_ranges)) != expected:
                raise UsageError(
                    f"the images of the task are decoded in another way than those of the model ({self.image_size} px, "
                    f"resize {self._decode_options.resize!r}); give the folder of the dataset instead"
                )
            return labelled_images_of(data, self.class_names, part=part, ignore_unknown=ignore_unknown)
        return read_labelled(
            data if isinstance(data, DatasetSource) else check_labelled(data),
            self.class_names,
            part=part,
            trained_on=self.metadata.get("dataset"),
            ignore_unknown=ignore_unknown,
            progress=progress,
        )

    def to_torch(self) -> nn.Module:
        """Returns a module that maps images to probabilities, on the device of the model and in evaluation mode.

        It expects RGB images of `image_size`, uint8 or floats in 0 ... 255, (n, 3, H, H), normalises them, and returns
        probabilities, float32 (n, C), with the temperature applied. Resizing is left to the caller:
        `metadata["resize"]` says how images were made square (`crop` if it is missing: the shorter side is scaled, and
        the centre is cropped). The module shares its weights with the model.
        """
        return ImageClassifier(self.module, self._mean, self._std).eval()

    @torch.no_grad()
    def _map(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        source: ImageSource,
        errors: dict[int, str],
        progress: Progress | None,
    ) -> Generator[tuple[list[int], torch.Tensor]]:
        """Yields the indices of the images of each batch and the result of a function of the batch, float32 (n, ...).

        Args:
            function: Maps normalised images, (n, 3, H, H), to results.
            source: The images.
            errors: Receives the reason by index for each image that cannot be read.
            progress: Called with the number of classified images.
        """
        size, n = inference_batch_size(BATCH_SIZE, self.image_size), len(source.items)
        index: list[int] = []
        pixels: list[npt.NDArray[np.uint8]] = []
        with contextlib.closing(iter_decoded(source.items, self.image_size, self._decode_options)) as decoded:
            for position, image in decoded:
                if isinstance(image, str):
                    errors[position] = image
                else:
                    index.append(position)
                    pixels.append(image.pixels)
                if len(index) == size or (index and position == n - 1):
                    yield index, self._apply(function, np.stack(pixels))
                    index, pixels = [], []
                    if progress is not None:
                        progress("classifying images", position + 1, n)

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        with autocast(self.device):
            inputs = normalise(images, self._mean, self._std).contiguous(memory_format=torch.channels_last)
            return function(inputs).float()

    def _collect(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        width: int,
        images: Any,
        recursive: bool,
        progress: Progress | None,
    ) -> FloatArray:
        """Returns the results of a function for all images, float32 (N, width); NaN for those that cannot be read."""
        source, errors = find_images(images, recursive=recursive), dict[int, str]()
        results = np.full((len(source.items), width), np.nan, dtype=np.float32)
        with contextlib.closing(self._map(function, source, errors, progress)) as batches:
            for index, batch in batches:
                results[index] = batch.cpu().numpy()
        if errors:
            names = source.names
            shown = [f"{names[i]} ({reason})" for i, reason in list(errors.items())[:_MAX_NAMES_SHOWN]]
            more = f" and {len(errors) - _MAX_NAMES_SHOWN} more" if len(errors) > _MAX_NAMES_SHOWN else ""
            logger.warning("%d of %d images cannot be read: %s%s", len(errors), len(names), ", ".join(shown), more)
        return results

    def _prediction_frame(
        self,
        source: ImageSource,
        errors: dict[int, str],
        values: FloatArray,
        classes: npt.NDArray[np.int64],
    ) -> pd.DataFrame:
        """Returns the frame of `predict`; values and classes are those of the most likely ones, (N, top)."""
        import pandas as pd

        labels = np.array(self.class_names, dtype=object)[classes]
        labels[list(errors)] = None
        columns: dict[str, Any] = {"path": source.names}
        for rank in range(values.shape[1]):
            suffix = f"_{rank + 1}" if rank else ""
            columns |= {f"label{suffix}": labels[:, rank], f"probability{suffix}": values[:, rank]}
        frame = pd.DataFrame({**columns, "error": [errors.get(i, "") for i in range(len(values))]})
        if not source.passed_over:
            return frame
        skipped = [{"path": str(file.path), "label": None, "error": file.reason} for file in source.passed_over]
        return pd.concat([frame, pd.DataFrame(skipped)], ignore_index=True)


class ImageClassifier(nn.Module):
    """Maps RGB images, uint8 or floats in 0 ... 255, (n, 3, H, H), to probabilities, float32 (n, C).

    Args:
        module: Maps normalised images to logits, divided by the temperature.
        mean: Mean of each channel, in 0 ... 1, (3,).
        std: Standard deviation of each channel, (3,).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, module: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the probabilities of a batch of images."""
        return self.module(normalise(images.float(), self.mean, self.std)).softmax(dim=1)  # type: ignore[no-any-return]
