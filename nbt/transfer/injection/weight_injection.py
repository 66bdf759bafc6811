"""TLI: transfer by injection of the weights of a pretrained teacher into a student of another architecture.

Czyzewski, "Transfer learning between different architectures via weights injection", arXiv 2101.02757. Layers are
matched (`nbt.transfer.injection.matching`), each tensor is adapted to the student's shape, and training starts from the
result. `nbt.transfer.injection.thresholds` has the similarities below which that is not known to help.

Not transferred are heads; tensors that belong to no layer (class token, position embeddings and biases, layer scales),
unless the matched units have one of the same name and shape; and the tensors listed in the report's `left`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nbt.errors import UsageError
from nbt.models.backbone import default_image_size
from nbt.models.backbone_spec import BackboneSpec
from nbt.models.teacher import Teacher
from nbt.models.weights import load_pretrained_weights
from nbt.transfer.injection.matching import (
    Matching,
    layer_score,
    match_at_random,
    match_in_order,
    matching_value,
    normalised_similarity,
)
from nbt.transfer.injection.outline import RUNNING_STATISTICS, Block, Layer, TensorInfo, outline_of, read_outline

MATCHINGS = ("order", "random")

COPY, CROP_AND_RESIZE, CROP, RESIZE, NONE = "copy", "crop + resize", "crop", "resize", "none"


@dataclass(frozen=True)
class TensorTransfer:
    """The origin of one tensor of the student.

    Attributes:
        student: Key in the student's state dict.
        layer: Name of the student's layer; the key for a tensor that belongs to no layer.
        shape: Shape of the tensor.
        trained: Whether it is a parameter and not a buffer.
        teacher: Key in the teacher's state dict; "" for none.
        teacher_layer: Name of the teacher's layer; "" for none.
        teacher_shape: Shape of the teacher's tensor.
        how: "copy", "crop + resize", "crop", "resize" or "none".
        score: Score of the shapes of the two layers, 0 ... 1.
        received: Number of elements that depend on the teacher.
        parts: Number of matrices stacked along the first dimension, which are transformed separately.
    """

    student: str
    layer: str
    shape: tuple[int, ...]
    trained: bool
    teacher: str = ""
    teacher_layer: str = ""
    teacher_shape: tuple[int, ...] = ()
    how: str = NONE
    score: float = 0.0
    received: int = 0
    parts: int = 1


@dataclass(frozen=True)
class InjectionReport:
    """The origin of every tensor of an injection.

    Attributes:
        student: Name of the student's architecture.
        teacher: Name of the teacher's architecture.
        similarity: Similarity of student and teacher by `tli_similarity`, 0 ... 1.
        matching: "order" or "random".
        blend: Share of the centre crop where shapes differ, 0 ... 1.
        transfers: All tensors of the student except the head's, in the student's order.
        statistics: Normalisation layers whose running statistics are not copied from the teacher; they are meaningless
            until `nbt.models.batch_norm.estimate_statistics` has processed target images.
    """

    student: str
    teacher: str
    similarity: float
    matching: str
    blend: float
    transfers: tuple[TensorTransfer, ...]
    statistics: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the student's parameters, without heads, that depend on the teacher, 0 ... 1."""
        trained = [transfer for transfer in self.transfers if transfer.trained]
        return sum(t.received for t in trained) / max(1, sum(math.prod(t.shape) for t in trained))

    @property
    def left(self) -> tuple[str, ...]:
        """Keys of the student's parameters that keep their own initialisation."""
        return tuple(transfer.student for transfer in self.transfers if transfer.trained and transfer.how == NONE)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report in JSON types."""
        return {
            "student": self.student,
            "teacher": self.teacher,
            "similarity": self.similarity,
            "coverage": self.coverage,
            "matching": self.matching,
            "blend": self.blend,
            "transfers": [
                dataclasses.asdict(t) | {"shape": [*t.shape], "teacher_shape": [*t.teacher_shape]}
                for t in self.transfers
            ],
            "statistics": list(self.statistics),
            "left": list(self.left),
        }

    def to_table(self) -> list[dict[str, str]]:
        """Returns one row per layer of the student, for its weight, and one per parameter that belongs to no layer."""
        rows: dict[str, dict[str, str]] = {}
        for transfer in self.transfers:
            if transfer.trained and transfer.layer not in rows:
                rows[transfer.layer] = {
                    "student": transfer.layer,
                    "shape": _format_shape(transfer.shape),
                    "teacher": transfer.teacher_layer or "-",
                    "from shape": _format_shape(transfer.teacher_shape) if transfer.teacher else "-",
                    "how": transfer.how,
                    "score": f"{transfer.score:.3f}" if transfer.teacher else "-",
                }
        return list(rows.values())


def tli_similarity(student: nn.Module | Block, teacher: nn.Module | Block) -> float:
    """Returns the similarity of a student to a teacher: DP(teacher, student) / DP(student, student).

    It is 1 for identical architectures and not symmetric. Its scale is not that of the authors' code: see
    `nbt.transfer.injection.thresholds`. Only shapes are used, so models on the meta device are
    supported; parameters, buffers, modes and random generators are not changed.

    Args:
        student: A model (see `read_outline`), or an outline.
        teacher: A model, or an outline.

    Returns:
        The similarity, 0 ... 1.

    Raises:
        UsageError: A model has no layer that can be matched.
    """
    student_outline = _as_outline(student)
    return normalised_similarity(matching_value(student_outline, _as_outline(teacher)), student_outline)


@torch.no_grad()
def inject(
    student: nn.Module,
    teacher: nn.Module,
    example_input: torch.Tensor | None = None,
    blend: float = 0.75,
    *,
    matching: str = "order",
    generator: torch.Generator | None = None,
) -> InjectionReport:
    """Writes a teacher's weights into a student, in place; heads and the teacher are not modified.

    Tensors of equal shape are copied, others go through `combine`; elements outside the crop keep the student's values,
    so initialise the student first. Weights and biases of normalisations are injected, too. Running statistics are
    copied only if the shapes of both the normalisation and its layer equal the teacher's; others are unchanged and are
    listed in the report, for `estimate_statistics`.

    Args:
        student: Any model (see `read_outline`).
        teacher: Any model.
        example_input: A batch for both models, to order the layers of unknown models by their calls.
        blend: Share of the centre crop, 0 ... 1.
        matching: "order", or "random": the control of `match_at_random`.
        generator: Random generator for random matching.

    Raises:
        UsageError: `blend` or `matching` is invalid, a model has no layer that can be matched, or no layer of the
            student has a counterpart of its kind in the teacher.
    """
    outlines = read_outline(student, example_input), read_outline(teacher, example_input)
    report = plan_injection(*outlines, blend=blend, matching=matching, generator=generator)
    state = student.state_dict()
    for key, tensor in injected_tensors(report, state, teacher.state_dict()):
        state[key].copy_(tensor)
    return report


@torch.no_grad()
def inject_weights(
    student: BackboneSpec,
    image_size: int,
    teacher: Teacher,
    *,
    blend: float = 0.75,
    seed: int = 0,
    matching: str = "order",
) -> tuple[dict[str, torch.Tensor], InjectionReport]:
    """Returns the initial weights of a backbone with injected weights of a teacher.

    Args:
        student: Architecture of the student.
        image_size: Height and width in pixels.
        teacher: The teacher.
        blend: Share of the centre crop, 0 ... 1.
        seed: Seed of the student's own initialisation, which is kept where nothing is injected, and of random matching.
        matching: "order", or "random" for the control.

    Returns:
        The state of the student's units in the form of `task.w0`, and the report.

    Raises:
        UsageError: `inject` would fail, or the student does not work on images of this size.
    """
    generator = torch.Generator().manual_seed(seed)
    outlines = outline_of(student, image_size), outline_of(teacher.spec, default_image_size(teacher.spec))
    report = plan_injection(
        *outlines,
        blend=blend,
        matching=matching,
        generator=generator,
        stale_statistics=teacher.stale_statistics,
    )
    w0 = load_pretrained_weights(student, "none", image_size=image_size, seed=seed).w0
    return {**w0, **dict(injected_tensors(report, w0, teacher.w0))}, report


def plan_injection(
    student: Block,
    teacher: Block,
    *,
    blend: float = 0.75,
    matching: str = "order",
    generator: torch.Generator | None = None,
    stale_statistics: Collection[str] = (),
) -> InjectionReport:
    """Returns the report of an injection, computed from the architectures alone.

    Args:
        student: The student's outline.
        teacher: The teacher's outline.
        blend: Share of the centre crop, 0 ... 1.
        matching: "order", or "random" for the control.
        generator: Random generator for random matching.
        stale_statistics: Names of the teacher's BatchNorm layers whose running statistics are not copied.

    Raises:
        UsageError: As for `inject`.
    """
    if not 0.0 <= blend <= 1.0:
        raise UsageError(f"blend: {blend!r} is outside 0 ... 1")
    if matching not in MATCHINGS:
        raise UsageError(f"matching: {matching!r} is not one of {', '.join(MATCHINGS)}")
    in_order = match_in_order(student, teacher)
    selected = in_order if matching == "order" else match_at_random(student, teacher, generator)
    if not selected.layers:
        raise UsageError(
            f"nothing of {teacher.name} can be injected into {student.name}: no two layers are of the same kind"
        )
    transfers = tuple(
        TensorTransfer(t.student, t.layer, t.shape, t.trained) if _is_stale(t, stale_statistics) else t
        for t in _plan_transfers(student, selected, blend)
    )
    unset_statistics = {t.layer: None for t in transfers if _is_running_statistic(t.student) and t.how == NONE}
    similarity = normalised_similarity(in_order.value, student)
    return InjectionReport(student.name, teacher.name, similarity, matching, blend, transfers, tuple(unset_statistics))


def injected_tensors(
    report: InjectionReport, student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields key and new value of every tensor that changes.

    Args:
        report: The report of the injection.
        student: State dict of the student.
        teacher: State dict of the teacher.
    """
    for transfer in report.transfers:
        if transfer.how != NONE:
            student_tensor = student[transfer.student]
            teacher_tensor = teacher[transfer.teacher].to(student_tensor)
            yield transfer.student, combine(teacher_tensor, student_tensor, report.blend, transfer.parts)


def combine(teacher: torch.Tensor, student: torch.Tensor, blend: float, parts: int = 1) -> torch.Tensor:
    """Adapts a tensor by ComboInjection: `blend * centre-crop + (1 - blend) * resize`; equal shapes are copied.

    Args:
        teacher: The teacher's tensor.
        student: The student's tensor of the same rank, whose values are kept outside the crop.
        blend: Share of the centre crop, 0 ... 1.
        parts: Number of matrices stacked along the first dimension of both, e.g. 3 for queries, keys and values; each
            is transformed separately.

    Returns:
        A tensor of the student's shape.
    """
    if teacher.shape == student.shape:
        return teacher.clone()
    if parts > 1:
        pairs = zip(teacher.chunk(parts), student.chunk(parts), strict=True)
        return torch.cat([combine(teacher_part, student_part, blend) for teacher_part, student_part in pairs])
    if blend == 0.0:
        return resize(teacher, student.shape)
    cropped = centre_crop(teacher, student)
    return cropped if blend == 1.0 else cropped.mul_(blend).add_(resize(teacher, student.shape), alpha=1.0 - blend)


def centre_crop(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Returns the student's tensor with its centre replaced by that of the teacher's tensor.

    In every dimension the replaced centre has the smaller of the two sizes.
    """
    cropped = student.clone()
    student_slices, teacher_slices = [], []
    for student_size, teacher_size in zip(student.shape, teacher.shape, strict=True):
        size = min(student_size, teacher_size)
        student_slices.append(slice((student_size - size) // 2, (student_size - size) // 2 + size))
        teacher_slices.append(slice((teacher_size - size) // 2, (teacher_size - size) // 2 + size))
    cropped[tuple(student_slices)] = teacher[tuple(teacher_slices)]
    return cropped


def resize(tensor: torch.Tensor, shape: Iterable[int]) -> torch.Tensor:
    """Resizes a tensor to a shape of the same rank by linear interpolation along every dimension.

    Sample positions are those of image resizing (cell centres, no smoothing); dimensions of size 1 are repeated.
    """
    for dim, size in enumerate(shape):
        if tensor.shape[dim] != size:
            rows = tensor.movedim(dim, -1)
            flat = F.interpolate(rows.reshape(1, -1, rows.shape[-1]), size=size, mode="linear", align_corners=False)
            tensor = flat.reshape(*rows.shape[:-1], size).movedim(-1, dim)
    return tensor


def _as_outline(model: nn.Module | Block) -> Block:
    return model if isinstance(model, Block) else read_outline(model)


def _plan_transfers(student: Block, matching: Matching, blend: float) -> Iterator[TensorTransfer]:
    """Yields the transfer of every tensor of the student."""
    pairs = {pair.student.name: pair for pair in matching.layers}
    counterparts = {block.name: teacher_block for block, teacher_block in matching.blocks if block.unassigned}
    for block in student.blocks():
        for child in block.children:
            if isinstance(child, Layer):
                pair = pairs.get(child.name)
                teacher_layers = {} if pair is None else _paired_layers(child, pair.teacher)
                same_shape = pair is not None and pair.teacher.shape == child.shape
                for part in child.with_norms():
                    yield from _plan_layer_transfers(part, teacher_layers.get(part.name), blend, same_shape=same_shape)
        for name, info in block.unassigned.items():
            counterpart = counterparts[block.name].unassigned.get(name) if block.name in counterparts else None
            usable = counterpart is not None and counterpart.shape == info.shape
            yield _plan_transfer(
                info, info.key, counterpart if usable else None, counterpart.key if counterpart else "", 1.0, blend
            )


def _paired_layers(student: Layer, teacher: Layer) -> dict[str, Layer]:
    """Returns the teacher's layers for a layer and its normalisations, by the student's names."""
    norm_pairs = [*zip(student.before, teacher.before, strict=False), *zip(student.after, teacher.after, strict=False)]
    norms = {norm.name: teacher_norm for norm, teacher_norm in norm_pairs if norm.family == teacher_norm.family}
    return {student.name: teacher, **norms}


def _plan_layer_transfers(
    layer: Layer, teacher: Layer | None, blend: float, *, same_shape: bool
) -> Iterator[TensorTransfer]:
    """Yields the transfers of the tensors of one layer.

    Args:
        layer: The student's layer, or a normalisation of it.
        teacher: The teacher's layer; None for no transfer.
        blend: Share of the centre crop.
        same_shape: Whether the weight of the layer that a normalisation belongs to has the teacher's shape.
    """
    for role, info in layer.tensors.items():
        counterpart = None if teacher is None else teacher.tensors.get(role)
        if (
            teacher is None
            or counterpart is None
            or (role in RUNNING_STATISTICS and not (same_shape and teacher.shape == layer.shape))
        ):
            yield _plan_transfer(info, layer.name, None, "", 0.0, blend)
        else:
            parts = layer.parts if layer.parts == teacher.parts else 1
            score = layer_score(layer.shape, teacher.shape)
            yield _plan_transfer(info, layer.name, counterpart, teacher.name, score, blend, parts)


def _plan_transfer(
    info: TensorInfo,
    layer: str,
    counterpart: TensorInfo | None,
    teacher_layer: str,
    score: float,
    blend: float,
    parts: int = 1,
) -> TensorTransfer:
    """Returns the transfer of one tensor of the student.

    Args:
        info: The student's tensor.
        layer: Name of its layer, or its key.
        counterpart: The teacher's tensor; None for no transfer.
        teacher_layer: Name of the layer of the counterpart, or its key; "" for none.
        score: Score of the shapes of the two layers.
        blend: Share of the centre crop.
        parts: Number of stacked matrices.
    """
    transfer = TensorTransfer(info.key, layer, info.shape, info.trained)
    if counterpart is None:
        return transfer
    how = COPY if counterpart.shape == info.shape else {0.0: RESIZE, 1.0: CROP}.get(blend, CROP_AND_RESIZE)
    covered = [min(a, b) for a, b in zip(info.shape, counterpart.shape, strict=True)] if how == CROP else info.shape
    return dataclasses.replace(
        transfer,
        teacher=counterpart.key,
        teacher_layer=teacher_layer,
        teacher_shape=counterpart.shape,
        how=how,
        score=score,
        received=math.prod(covered),
        parts=parts,
    )


def _is_stale(transfer: TensorTransfer, stale_statistics: Collection[str]) -> bool:
    layer, _, role = transfer.teacher.rpartition(".")
    return role in RUNNING_STATISTICS and layer in stale_statistics


def _is_running_statistic(key: str) -> bool:
    return key.rpartition(".")[2] in RUNNING_STATISTICS[:2]


def _format_shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "1"
