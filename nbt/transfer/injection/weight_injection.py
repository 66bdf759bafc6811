"""TLI: transfer by injection. The weights of a pretrained teacher, put into a student of another architecture.

Czyzewski, "Transfer learning between different architectures via weights injection", arXiv 2101.02757. Layers are
matched (`nbt.transfer.injection.matching`), each tensor is brought to the student's shape, and training starts from there.
In 67 pairs of the follow-up (arXiv 2212.13970) every injection below a similarity of .35 did worse than random
initialisation, most between .35 and .5 gained little, and none above .6 lost.

What is not transferred: heads; tensors that belong to no layer (class token, position embeddings and biases, layer
scales), unless the matched units have one of the same name and shape; and whatever the report lists in `left`.
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
MIN_SAFE_SIMILARITY = 0.5
"""Below it injection is not known to help."""

COPY, CROP_AND_RESIZE, CROP, RESIZE, NONE = "copy", "crop + resize", "crop", "resize", "none"


@dataclass(frozen=True)
class TensorTransfer:
    """Where one tensor of the student came from.

    Attributes:
        student: Its key in the student's state dict.
        layer: The student's layer; the key again for a tensor of no layer.
        shape: Its shape.
        trained: Whether it is a parameter and not a buffer.
        teacher: The key in the teacher's state dict; "" for none.
        teacher_layer: The teacher's layer; "" for none.
        teacher_shape: Shape there.
        how: "copy", "crop + resize", "crop", "resize" or "none".
        score: Of the two layers' shapes, 0 ... 1.
        received: Elements in which something of the teacher is.
        parts: Matrices in the first dimension, each of which is transformed alone.
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
    """What an injection puts where.

    Attributes:
        student: The architecture that receives.
        teacher: The one that gives.
        similarity: Of student and teacher by `tli_similarity`, 0 ... 1.
        matching: "order" or "random".
        blend: Share of the centre crop where shapes differ, 0 ... 1.
        transfers: Every tensor of the student but the head's, in the student's order.
        statistics: Normalisation layers whose running statistics are not the teacher's; they describe nothing until
            `estimate_statistics` has seen target images.
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
        """Share of the student's parameters, heads aside, that received something, 0 ... 1."""
        trained = [transfer for transfer in self.transfers if transfer.trained]
        return sum(t.received for t in trained) / max(1, sum(math.prod(t.shape) for t in trained))

    @property
    def left(self) -> tuple[str, ...]:
        """Keys of the student's parameters that keep their own initialisation."""
        return tuple(transfer.student for transfer in self.transfers if transfer.trained and transfer.how == NONE)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types."""
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
        """Returns a row for every layer of the student, by its weight, and for every parameter of no layer."""
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
    """Returns how much of a student finds its like in a teacher: DP(teacher, student) / DP(student, student).

    It is 1 for itself, not symmetric, and looks at shapes alone: models on the meta device will do, and nothing of
    them changes, neither parameters and buffers nor modes and random generators.

    Args:
        student: A model (see `read_outline`), or an outline.
        teacher: A model, or an outline.

    Returns:
        0 ... 1.

    Raises:
        UsageError: One has no layer that can be matched.
    """
    ours, theirs = _as_outline(student), _as_outline(teacher)
    return normalised_similarity(matching_value(ours, theirs), ours)


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
    """Writes a teacher's weights into a student, in place; heads and the teacher stay as they are.

    Tensors of the same shape are copied, others go through `combine`; what a crop leaves uncovered keeps the student's
    own values, so initialise the student first. Weight and bias of normalisations are injected too. Running statistics
    are copied only where both the normalisation and the layer that it belongs to have the teacher's shape; others stay
    as they are and are listed for `estimate_statistics`.

    Args:
        student: Any model (see `read_outline`).
        teacher: Any model.
        example_input: A batch for both, to read models that are no known backbones in the order of their calls.
        blend: Share of the centre crop, 0 ... 1.
        matching: "order", or "random": the control of `match_at_random`.
        generator: Of random matching.

    Raises:
        UsageError: `blend` or `matching` is wrong, a model has no layer that can be matched, or no layer of the student
            has one of its kind in the teacher.
    """
    ours, theirs = read_outline(student, example_input), read_outline(teacher, example_input)
    report = plan_injection(ours, theirs, blend=blend, matching=matching, generator=generator)
    own, given = student.state_dict(), teacher.state_dict()
    for key, tensor in injected(report, own, given):
        own[key].copy_(tensor)
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
    """Returns the weights with which a backbone starts that is injected into.

    Args:
        student: Its architecture.
        image_size: Height and width in pixels.
        teacher: What is injected.
        blend: Share of the centre crop, 0 ... 1.
        seed: Of the student's own initialisation, which everything keeps that receives nothing, and of random matching.
        matching: "order", or "random" for the control.

    Returns:
        The state of the student's units as `task.w0` has it, and what came from where.

    Raises:
        UsageError: As `inject`, or the student does not work on images of this size.
    """
    generator = torch.Generator().manual_seed(seed)
    ours = outline_of(student, image_size)
    theirs = outline_of(teacher.spec, default_image_size(teacher.spec))
    report = plan_injection(ours, theirs, blend=blend, matching=matching, generator=generator)
    w0 = load_pretrained_weights(student, "none", image_size=image_size, seed=seed).w0
    return {**w0, **dict(injected(report, w0, teacher.w0))}, report


def plan_injection(
    student: Block,
    teacher: Block,
    *,
    blend: float = 0.75,
    matching: str = "order",
    generator: torch.Generator | None = None,
) -> InjectionReport:
    """Returns what an injection would put where, from the architectures alone.

    Raises:
        UsageError: As `inject`.
    """
    if not 0.0 <= blend <= 1.0:
        raise UsageError(f"blend: {blend!r} is outside 0 ... 1")
    if matching not in MATCHINGS:
        raise UsageError(f"matching: {matching!r} is not one of {', '.join(MATCHINGS)}")
    in_order = match_in_order(student, teacher)
    chosen = in_order if matching == "order" else match_at_random(student, teacher, generator)
    if not chosen.layers:
        raise UsageError(f"nothing of {teacher.name} can be injected into {student.name}: no two layers are of a kind")
    transfers = tuple(_plan_transfers(student, chosen, blend))
    fresh = {t.layer: None for t in transfers if _is_running_statistic(t.student) and t.how == NONE}
    similarity = normalised_similarity(in_order.value, student)
    return InjectionReport(student.name, teacher.name, similarity, matching, blend, transfers, tuple(fresh))


def injected(
    report: InjectionReport, student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields key and new value of every tensor that receives something.

    Args:
        report: The plan.
        student: The student's own state.
        teacher: The teacher's.
    """
    for transfer in report.transfers:
        if transfer.how != NONE:
            own = student[transfer.student]
            source = teacher[transfer.teacher].to(own)
            yield transfer.student, combine(source, own, report.blend, transfer.parts)


def combine(source: torch.Tensor, own: torch.Tensor, blend: float, parts: int = 1) -> torch.Tensor:
    """Returns ComboInjection: `blend * centre-crop + (1 - blend) * resize`; the source itself where shapes are equal.

    Args:
        source: The teacher's tensor.
        own: The student's of the same rank, which stays where the crop does not reach.
        blend: 0 ... 1.
        parts: Matrices that the first dimension of both holds one behind the other, e.g. 3 for queries, keys and
            values; each is transformed alone.

    Returns:
        A tensor of the shape of `own`.
    """
    if source.shape == own.shape:
        return source.clone()
    if parts > 1:
        pairs = zip(source.chunk(parts), own.chunk(parts), strict=True)
        return torch.cat([combine(theirs, ours, blend) for theirs, ours in pairs])
    if blend == 0.0:
        return resize(source, own.shape)
    cropped = centre_crop(source, own)
    return cropped if blend == 1.0 else cropped.mul_(blend).add_(resize(source, own.shape), alpha=1.0 - blend)


def centre_crop(source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Returns `own` with the centre of `source` put over its centre, as far as both reach in every dimension."""
    cropped = own.clone()
    put, taken = [], []
    for ours, theirs in zip(own.shape, source.shape, strict=True):
        size = min(ours, theirs)
        put.append(slice((ours - size) // 2, (ours - size) // 2 + size))
        taken.append(slice((theirs - size) // 2, (theirs - size) // 2 + size))
    cropped[tuple(put)] = source[tuple(taken)]
    return cropped


def resize(source: torch.Tensor, shape: Iterable[int]) -> torch.Tensor:
    """Returns a tensor stretched to a shape of its rank by linear interpolation along every dimension.

    Places are those of image resizing (cell centres, no smoothing); what is stretched from size 1 is repeated.
    """
    for dim, size in enumerate(shape):
        if source.shape[dim] != size:
            rows = source.movedim(dim, -1)
            flat = F.interpolate(rows.reshape(1, -1, rows.shape[-1]), size=size, mode="linear", align_corners=False)
            source = flat.reshape(*rows.shape[:-1], size).movedim(-1, dim)
    return source


@torch.no_grad()
def estimate_statistics(
    model: nn.Module, batches: Iterable[torch.Tensor], layers: Collection[str] | None = None
) -> None:
    """Re-estimates running statistics of BatchNorm as the mean over the statistics of batches, in place.

    The other layers run in evaluation mode; every module's mode and momentum are as before afterwards.

    Args:
        model: The model.
        batches: Target images ready for it, (N, 3, H, W) each with N > 1.
        layers: Names of the layers in the model, e.g. `InjectionReport.statistics`; all when None.

    Raises:
        UsageError: There is no batch.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    chosen = [m for name, m in norms.items() if m.track_running_stats and (layers is None or name in layers)]
    if not chosen:
        return
    before = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in chosen]
    kept = [[tensor.clone() for tensor in norm.buffers()] for norm in chosen]
    seen = 0
    try:
        model.eval()
        for norm in chosen:
            norm.reset_running_stats()
            norm.train().momentum = None  # the plain mean over batches
        for images in batches:
            model(images)
            seen += 1
    finally:
        for norm, momentum in zip(chosen, momenta, strict=True):
            norm.momentum = momentum
        for module, training in before:
            module.training = training
        if not seen:
            for norm, tensors in zip(chosen, kept, strict=True):
                for buffer, tensor in zip(norm.buffers(), tensors, strict=True):
                    buffer.copy_(tensor)
    if not seen:
        raise UsageError("running statistics cannot be estimated without a batch of images")


def _as_outline(model: nn.Module | Block) -> Block:
    return model if isinstance(model, Block) else read_outline(model)


def _plan_transfers(student: Block, matching: Matching, blend: float) -> Iterator[TensorTransfer]:
    """Yields what happens to every tensor of the student."""
    pairs = {pair.student.name: pair for pair in matching.layers}
    counterparts = {ours.name: theirs for ours, theirs in matching.blocks if ours.loose}
    for block in student.blocks():
        for child in block.children:
            if isinstance(child, Layer):
                pair = pairs.get(child.name)
                found = {} if pair is None else _paired_layers(child, pair.teacher)
                exact = pair is not None and pair.teacher.shape == child.shape
                for part in child.with_norms():
                    yield from _plan_layer_transfers(part, found.get(part.name), blend, exact=exact)
        for inside, facts in block.loose.items():
            counterpart = counterparts[block.name].loose.get(inside) if block.name in counterparts else None
            same = counterpart is not None and counterpart.shape == facts.shape
            yield _plan_transfer(
                facts, facts.key, counterpart if same else None, counterpart.key if counterpart else "", 1.0, blend
            )


def _paired_layers(student: Layer, teacher: Layer) -> dict[str, Layer]:
    """Returns what a layer and its normalisations get their weights from, by name."""
    beside = [*zip(student.before, teacher.before, strict=False), *zip(student.after, teacher.after, strict=False)]
    norms = {ours.name: theirs for ours, theirs in beside if ours.family == theirs.family}
    return {student.name: teacher, **norms}


def _plan_layer_transfers(
    layer: Layer, teacher: Layer | None, blend: float, *, exact: bool
) -> Iterator[TensorTransfer]:
    """Yields what happens to the tensors of one layer.

    Args:
        layer: The student's.
        teacher: What gives; None for nothing.
        blend: Of crop and resize.
        exact: Whether the weights that a normalisation belongs to have the same shape.
    """
    for role, facts in layer.tensors.items():
        counterpart = None if teacher is None else teacher.tensors.get(role)
        if (
            teacher is None
            or counterpart is None
            or (role in RUNNING_STATISTICS and not (exact and teacher.shape == layer.shape))
        ):
            yield _plan_transfer(facts, layer.name, None, "", 0.0, blend)
        else:
            parts = layer.parts if layer.parts == teacher.parts else 1
            score = layer_score(layer.shape, teacher.shape)
            yield _plan_transfer(facts, layer.name, counterpart, teacher.name, score, blend, parts)


def _plan_transfer(
    facts: TensorInfo,
    layer: str,
    counterpart: TensorInfo | None,
    mate_layer: str,
    score: float,
    blend: float,
    parts: int = 1,
) -> TensorTransfer:
    nothing = TensorTransfer(facts.key, layer, facts.shape, facts.trained)
    if counterpart is None:
        return nothing
    how = COPY if counterpart.shape == facts.shape else {0.0: RESIZE, 1.0: CROP}.get(blend, CROP_AND_RESIZE)
    reached = [min(a, b) for a, b in zip(facts.shape, counterpart.shape, strict=True)] if how == CROP else facts.shape
    return dataclasses.replace(
        nothing,
        teacher=counterpart.key,
        teacher_layer=mate_layer,
        teacher_shape=counterpart.shape,
        how=how,
        score=score,
        received=math.prod(reached),
        parts=parts,
    )


def _is_running_statistic(key: str) -> bool:
    return key.rpartition(".")[2] in RUNNING_STATISTICS[:2]


def _format_shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "1"
