"""The task: images, labels and splits of the target, and the backbone with its pretrained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbt.checks import CheckResult
from nbt.errors import UsageError, nearest
from nbt.object_html import short_repr, table_html

if TYPE_CHECKING:
    import torch

    from nbt.data.image_store import ImageStore
    from nbt.data.splits import Index, Pools, Split
    from nbt.models.backbone import Backbone
    from nbt.models.backbone_spec import BackboneSpec
    from nbt.models.teacher import Teacher
    from nbt.models.weights import SourceClassMeans
    from nbt.task.source_data import SourceData

# Images from which running statistics are estimated.
_STATISTICS_IMAGES = 1024
_STATISTICS_BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class Task:
    """A labelled image dataset and a pretrained backbone.

    A task can be pickled; images with a cache file are pickled as its path.

    Attributes:
        dataset: The dataset as the user named it.
        class_names: Class names in the order of the labels.
        fingerprint: Hash of the task's images, labels and official splits (not of the decoded pixels).
        images: Decoded images, uint8 (N, H, W, 3).
        labels: Class indices 0 ... C-1, int64 (N,).
        pools: Pools of training, validation and test images: official ones, or drawn once from the dataset.
        split: Indices of the training, validation and test images; see `with_split_seed`.
        backbone: The architecture.
        weights: Origin of the weights: "default", "none" or a file.
        w0: The pretrained weights, a state dict of `Backbone` without the head; never modified.
        mean: Mean of each RGB channel, in 0 ... 1, for the normalisation of images.
        std: Standard deviation of each RGB channel for the normalisation of images.
        mirror: Whether a mirrored image shows the same class; false for characters.
        seed: Seed of the split and of the shots.
        fold: Fold of the split.
        data_dir: The user's option `data_dir`, kept for reports.
        classes: The user's option `classes`, kept for reports.
        shots: The user's option `shots`, kept for reports.
        watched: Indices of images on which every epoch is evaluated for recorded tables only (`nbt record`), int64
            (n,); no decision may use these results.
        source_head: The classifier of the source, see `PretrainedWeights.source_head`; None without one.
        source_means: Mean features of the source classes for weights trained by nbt; else None.
        stale_statistics: Names of the BatchNorm layers whose running statistics in w0 are unusable; `build_model`
            re-estimates them.
        teachers: The teachers whose weights can be injected (`settings.init` "inject").
        content_hash: Hash of the bytes of the image files; None for images in memory, which `fingerprint` covers.
        scenario: Scenario of a stream of tasks: "data", "task" or "class"; None for a single task.
        tasks: Number of tasks of the stream; 0 without one.
        resize: How images become square: "crop", "pad" or "squash".
        source_data: Images of the source task, whose accuracy with `source_head` trials measure; None without them, or
            if the weights have no usable classifier.
        checks: Results of the checks of the data, failed ones first.
        copied_test: Indices of the test images with a near copy in training or validation.
        contents: `nbt.data.contents.Contents` of the files as bytes; None for images in memory.
        candidates: Name of another backbone that a search may choose -> its task, which has the same images, labels and
            split, and shares the decoded images unless their size differs; empty for a single backbone.
    """

    dataset: str
    class_names: tuple[str, ...]
    fingerprint: str
    images: ImageStore
    labels: npt.NDArray[np.int64]
    pools: Pools
    split: Split
    backbone: BackboneSpec
    weights: str
    w0: Mapping[str, torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirror: bool = True
    seed: int = 0
    fold: int = 0
    data_dir: str | None = None
    classes: int | None = None
    shots: int | None = None
    watched: npt.NDArray[np.int64] | None = None
    source_head: Mapping[str, torch.Tensor] | None = None
    source_means: SourceClassMeans | None = None
    stale_statistics: tuple[str, ...] = ()
    teachers: tuple[Teacher, ...] = ()
    content_hash: str | None = None
    scenario: str | None = None
    tasks: int = 0
    resize: str = "crop"
    source_data: SourceData | None = None
    checks: tuple[CheckResult, ...] = ()
    copied_test: tuple[int, ...] = ()
    contents: bytes | None = None
    candidates: Mapping[str, Task] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return short_repr("Task", [str(value) for _, value in self._facts()])

    def _repr_html_(self) -> str:
        failed = [result.code for result in self.checks if result.is_failed]
        return table_html("Task", self._facts(), f"failed checks of the data: {', '.join(failed)}" if failed else "")

    def _facts(self) -> list[tuple[str, str]]:
        """Returns what defines the task, as names and texts."""
        split = self.split
        facts = {
            "dataset": self.dataset,
            "backbone": self.backbone.text,
            "weights": f"weights {self.weights}",
            "classes": f"{self.n_classes} classes",
            "image size": f"{self.image_size} px",
            "images": f"{len(split.train)} training, {len(split.val)} validation and {len(split.test)} test images",
            "teacher": "" if not self.teachers else f"teacher {', '.join(teacher.name for teacher in self.teachers)}",
            "stream": "" if self.scenario is None else f"{self.tasks} tasks, scenario {self.scenario}",
        }
        return [(name, text) for name, text in facts.items() if text]

    def candidate(self, name: str) -> Task:
        """Returns the task of a backbone; that of the task itself for "".

        Raises:
            UsageError: There is no such candidate.
        """
        if name and name not in self.candidates:
            raise UsageError(f"backbone: {name!r} is not a backbone of this search; {nearest(name, self.candidates)}")
        return self.candidates[name] if name else self

    def map_candidates(self, change: Callable[[Task], Task]) -> Task:
        """Returns the task with the task of each backbone, itself included, replaced by `change(task)`."""
        candidates = {name: change(task) for name, task in self.candidates.items()}
        return dataclasses.replace(change(self), candidates=candidates)

    def map_images(self, change: Callable[[ImageStore, str], ImageStore]) -> Task:
        """Returns the task with the images of all its backbones and sources changed; those that are shared stay so.

        Args:
            change: Maps images, and a name for them that is unique in the task, to other images.
        """
        changed: dict[int, ImageStore] = {}

        def once(store: ImageStore, name: str) -> ImageStore:
            if id(store) not in changed:
                changed[id(store)] = change(store, name)
            return changed[id(store)]

        def change_all(task: Task) -> Task:
            images, source = once(task.images, f"{task.image_size}px"), task.source_data
            if source is not None:
                source = dataclasses.replace(source, images=once(source.images, f"source-{task.image_size}px"))
            return dataclasses.replace(task, images=images, source_data=source)

        return self.map_candidates(change_all)

    @property
    def any_source_data(self) -> SourceData | None:
        """`source_data` of the first of its backbones that has some."""
        found = (task.source_data for task in (self, *self.candidates.values()))
        return next((source for source in found if source is not None), None)

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.images.size

    @property
    def weights_hash(self) -> str:
        """Hash of the pretrained weights as they were loaded, see `nbt.models.weights.hash_weights`."""
        from nbt.models.weights import hash_weights

        return hash_weights(self.w0, self.stale_statistics)

    def with_split_seed(self, seed: int, fold: int = 0) -> Task:
        """Returns the task with another stratified train/validation split; the test images are unchanged.

        Args:
            seed: Seed of the split.
            fold: Fold of the seed, see `nbt.data.splits.make_split`.
        """
        from nbt.data.splits import make_split

        return dataclasses.replace(self, split=make_split(self.pools, self.labels, seed, fold), seed=seed, fold=fold)

    def train_on_all(self) -> Task:
        """Returns the task with the validation images moved to the training images."""
        return dataclasses.replace(self, split=self.split.merge_validation())

    def build_model(self, seed: int | None = None, device: str | torch.device = "cpu") -> Backbone:
        """Builds a backbone with a head of `n_classes` outputs, in evaluation mode and channels_last memory format.

        Args:
            seed: Seed of a random initialisation of all weights; None loads w0 into the units (the head remains
                random), and re-estimates unusable running statistics.
            device: Device of the model.
        """
        import torch

        from nbt.models.backbone import build_backbone

        model = build_backbone(self.backbone, self.n_classes, image_size=self.image_size, seed=seed or 0)
        if seed is None:
            model.load_pretrained(self.w0)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if seed is None:
            self.estimate_statistics(model, self.stale_statistics)
        return model

    def estimate_statistics(self, model: Backbone, layers: Collection[str]) -> None:
        """Re-estimates running statistics of a model in place, on up to 1024 training images of the split.

        Args:
            model: A model of the task's backbone.
            layers: Names of the BatchNorm layers.

        Raises:
            UsageError: There is no training image.
        """
        import torch

        from nbt.devices import inference_batch_size
        from nbt.models.batch_norm import estimate_statistics
        from nbt.seeds import generator

        train, device = self.split.train, model.head.weight.device
        chosen = train[torch.randperm(len(train), generator=generator(0, "sample")).numpy()[:_STATISTICS_IMAGES]]
        # A batch of one image may have no statistics.
        batch_size = max(2, inference_batch_size(_STATISTICS_BATCH_SIZE, self.image_size))
        batches = np.array_split(chosen, max(1, len(chosen) // batch_size)) if len(chosen) else []
        estimate_statistics(model, (self.load_images(batch, device) for batch in batches), layers)

    def load_images(self, index: Index, device: torch.device) -> torch.Tensor:
        """Returns images, (n, 3, H, W), on the device, normalised as in evaluation.

        Args:
            index: Indices of the images, int64 (n,).
            device: Target device.
        """
        import torch

        from nbt.devices import normalise

        mean, std = torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)
        pixels = torch.from_numpy(self.images.array[index]).to(device)
        images = normalise(pixels.permute(0, 3, 1, 2).float(), mean, std)
        return images.contiguous(memory_format=torch.channels_last)
