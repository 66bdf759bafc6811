"""Task: what is transferred to what. Images, labels and splits of the target; backbone and w0 of the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbt.models.weights import SourceClassMeans

if TYPE_CHECKING:
    import torch

    from nbt.data.image_store import ImageStore
    from nbt.data.splits import Pools, Split
    from nbt.models.backbone import Backbone
    from nbt.models.backbone_spec import BackboneSpec
    from nbt.models.teacher import Teacher


@dataclass(frozen=True, eq=False)
class Task:
    """A labelled image dataset and a pretrained backbone. It can be pickled; a large image store travels as a path.

    Attributes:
        dataset: The dataset as the user named it.
        class_names: One name a class, in the order of the labels.
        fingerprint: Hash of which images, labels and official split the task has (not of their decoding).
        images: Decoded images, uint8 (N, H, W, 3).
        labels: int64 (N,), 0 ... C-1.
        pools: Official train, validation and test images, as given by the dataset or cut once from it.
        split: Indices to train on, to validate on and to test on; see `with_split_seed`.
        backbone: Which architecture.
        weights: Where its weights came from: "default", "none" or a file.
        w0: Its pretrained weights, the state dict of `Backbone` without the head; captured once, never changed.
        mean: Mean of each RGB channel in 0 ... 1 that the backbone's weights expect to be subtracted.
        std: The standard deviation they expect to be divided by.
        mirror: Whether a mirrored image shows the same class; false for characters.
        seed: Seed of the split (and of the shots).
        data_dir: Where the user said that the dataset is, for the record.
        classes: `classes` as the user gave it, for the record.
        shots: `shots` as the user gave it, for the record.
        watched: Images on which every epoch is evaluated for a benchmark's record alone (`nbt record`), int64 (n,);
            nothing may act on what they give.
        source_head: The classifier that the weights came with, as `PretrainedWeights.source_head`; None without one.
        source_means: Class means of the source, for weights that were trained here; else None.
        teacher: Whose weights can be injected (`settings.init` "inject"); None without one.
        scenario: How the dataset comes as a stream of tasks: "data", "task" or "class"; None where it comes at once.
        tasks: Length of that stream; 0 without one.
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
    data_dir: str | None = None
    classes: int | None = None
    shots: int | None = None
    watched: npt.NDArray[np.int64] | None = None
    source_head: Mapping[str, torch.Tensor] | None = None
    source_means: SourceClassMeans | None = None
    teacher: Teacher | None = None
    scenario: str | None = None
    tasks: int = 0

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.images.size

    def with_split_seed(self, seed: int) -> Task:
        """Returns the task with another stratified train/validation split; test never changes."""
        from nbt.data.splits import make_split

        return dataclasses.replace(self, split=make_split(self.pools, self.labels, seed), seed=seed)

    def train_on_all(self) -> Task:
        """Returns the task with the validation images added to the training images, and none left to validate on."""
        return dataclasses.replace(self, split=self.split.merge_validation())

    def build_model(self, seed: int | None = None) -> Backbone:
        """Returns a new backbone with a head of `n_classes` outputs, in evaluation mode.

        Args:
            seed: Draws every weight afresh from the architecture's own initialisation; None loads w0 into the units
                (the head is then still random).
        """
        from nbt.models.backbone import build_backbone

        model = build_backbone(self.backbone, self.n_classes, image_size=self.image_size, seed=seed or 0)
        if seed is None:
            model.load_pretrained(self.w0)
        return model
